"""Path patching: who writes the answer, and which MLPs feed those who do?

How the paper picks lookup layers for CounterFact (method §4.4). Denoising, with

    m = (LD - LD_corrupt) / (LD_clean - LD_corrupt)

each LD a mean over the facts:

1. extraction heads: the clean output of one head goes into the corrupt run along the
   path head -> stream -> MLPs -> logits; all later attention is held corrupt. The
   largest |m| are the extraction heads, the lowest of their layers the receiver.
2. lookup MLPs: what a clean MLP below the receiver would add to the corrupt stream is
   added where it enters the receiver's layer, everything between held corrupt.
"""

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, RandomTokens
from mu_jax.facts.tokens import shared_prefix
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric
from mu_jax.localizers.patched_runs import Base, Cell, base, sites_of, sweep
from mu_jax.localizers.patching import (
    Inputs,
    checked,
    corruptions,
    effect,
    measure,
    record,
)
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.types import Progress, Prompts, Scores, Site, silent


def told(notes: Mapping[str, Any], mlps: Float[np.ndarray, " layer"]) -> dict[str, str]:
    """Finding, heading and caption of such scores."""
    heads = notes["extraction_heads"]
    order = np.argsort(-np.abs(mlps), kind="stable")[:5]
    feeding = ", ".join(f"{Site(int(i), 'mlp')} {mlps[i]:+.2f}" for i in order)
    return {
        "finding": f"heads {', '.join(heads)} write the answer; the MLPs below layer"
        f" {notes['receiver']} that feed them most: {feeding}",
        "heading": "Who writes the answer, and what feeds them",
        "caption": f"Path patching over {notes['rows']} prompts: the direct effect of"
        f" each head on the logits ({len(heads)} extraction heads are marked), and that"
        f" of each MLP on the stream that enters layer {notes['receiver']}, the lowest"
        " of them.",
    }


@dataclasses.dataclass(frozen=True)
class PathPatching:
    """Scores of heads (direct effect) and of the MLPs that feed them.

    Attributes:
      corruption: of the subject; noise is averaged over its draws.
      metric: of the effect.
      heads: how many extraction heads.
      rows: at most this many prompts, the first ones.
      batch: cells run together, each with all rows.
      mode: `clean`, or `paper` (see `mu_jax.localizers`).
    """

    corruption: Corruption = RandomTokens()
    metric: Metric = LogitDiff()
    heads: int = 10
    rows: int = 16
    batch: int = 4
    mode: str = "clean"

    needs: ClassVar[Needs] = "pairs"

    def __post_init__(self):
        if self.heads < 1:
            raise UserError(f"{self.heads} extraction heads", "at least 1")
        if self.mode not in ("clean", "paper"):
            raise UserError(f"the mode {self.mode!r}", "clean or paper")

    def __call__(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,
    ) -> Scores:
        """m of every head and MLP; MLPs from the receiver on have 0.

        Args:
          journal: what a sweep cut short has measured; filled as this one goes.
        """
        clean, corrupt = (p.rows(slice(self.rows)) for p in (clean, corrupt))
        checked(clean, corrupt)
        spec = model.spec
        heads = self.direct_effects(model, clean, corrupt, progress, journal)
        order = np.argsort(-np.abs(heads), axis=None, kind="stable")[: self.heads]
        chosen = [divmod(i, spec.heads) for i in order.tolist()]
        receiver = min(layer for layer, _ in chosen)
        mlps = self.feeding(model, clean, corrupt, receiver, progress)
        values = {
            Site(layer, "head", h): float(heads[layer, h])
            for layer, h in np.ndindex(heads.shape)
        }
        values |= {Site(layer, "mlp"): float(m) for layer, m in enumerate(mlps)}
        tables = {"head": heads.tolist(), "mlp": mlps[:, None].tolist()}
        axes = {"head": [f"head {h}" for h in range(spec.heads)], "mlp": ["MLP"]}
        notes = {
            "rows": len(clean.tokens),
            "mode": self.mode,
            "receiver": receiver,
            "extraction_heads": [str(Site(i, "head", h)) for i, h in chosen],
        }
        said = told(notes, mlps)
        return Scores("paths", values, tables, axes, notes, **said)

    def direct_effects(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        done: MutableMapping[str, Any] | None = None,
        hold: bool = True,
    ) -> Float[np.ndarray, "layer head"]:
        """m of each head along its path to the logits through later MLPs.

        Without `hold` later attention follows too, and m is the head's total effect.
        """
        spec = model.spec
        cells = [
            Cell((head, *self._held(head.layer, spec.layers, hold)))
            for head in sites_of("head", spec)
        ]
        effects = []
        for run in self._runs(model, clean, corrupt, ("head", "attn")):
            values = sweep(
                model,
                run.base,
                cells,
                self.metric,
                run.reference,
                prefix=run.prefix,
                batch=self.batch,
                done=done,
                name=f"heads, {run.name} ",
                progress=progress,
            )
            effects.append(self._share(values, run))
        return np.mean(effects, axis=0).reshape(spec.layers, spec.heads)

    def feeding(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        receiver: int,
        progress: Progress = silent,
    ) -> Float[np.ndarray, " layer"]:
        """m of what each MLP writes into layer `receiver`, and nowhere between.

        0 from the receiver on: those are run without a change, so that one program
        serves every receiver.
        """
        layers = model.spec.layers
        effects = []
        progress("patching MLPs into the receiver", 0, 1)
        for run in self._runs(model, clean, corrupt, ("mlp",)):
            below = jnp.arange(layers) < receiver
            change = run.base.donors["mlp"] - run.corrupt["mlp"]
            change = jnp.where(below[:, None, None, None], change, 0)
            values = _into(
                model.network,
                model.params,
                run.base,
                change,
                np.int32(receiver),
                run.reference,
                metric=self.metric,
                prefix=run.prefix,
            )
            effects.append(self._share(fetch(values), run))
        progress("patching MLPs into the receiver", 1, 1)
        return np.where(np.arange(layers) < receiver, np.mean(effects, axis=0), 0.0)

    def _held(self, layer: int, layers: int, hold: bool) -> list[Site]:
        """The attention that stays as it is in the corrupt run."""
        return [Site(later, "attn") for later in range(layer + 1, layers) if hold]

    def _runs(self, model: Model, clean: Prompts, corrupt: Prompts, kinds):
        """The corrupt runs as bases for clean donors; `attn` is held corrupt."""
        prefix = shared_prefix(clean, corrupt)
        ends, donors = record(
            model.network, model.params, Inputs(clean), kinds=kinds, prefix=prefix
        )
        reference = self.metric.reference(model.network, model.params, ends)
        judge = lambda at: fetch(
            measure(model.network, model.params, at, clean, ends, metric=self.metric)
        )
        inputs = corruptions(model, clean, corrupt, self.corruption, prefix)
        for draw, corrupted in enumerate(inputs):
            _, own = record(
                model.network, model.params, corrupted, kinds=kinds, prefix=prefix
            )
            mixed = {k: own[k] if k == "attn" else d for k, d in donors.items()}
            made, at = base(model, corrupted, mixed, prefix)
            yield _Run(
                f"run {draw}", made, own, reference, judge(ends), judge(at), prefix
            )

    def _share(self, values: np.ndarray, run: "_Run") -> np.ndarray:
        """m from metrics [cell, row]."""
        dtype = np.float16 if self.mode == "paper" else values.dtype
        ends = np.array([run.clean.mean(), run.corrupted.mean()], dtype)
        values, (clean, corrupt) = values.astype(dtype), ends
        gap = effect(clean, corrupt, self.metric)
        return (values.mean(axis=1) - corrupt) / gap


@dataclasses.dataclass(frozen=True)
class _Run:
    """One corrupt run to patch into, and the metric [row] at both ends."""

    name: str
    base: Base
    corrupt: dict[str, Array]
    reference: Array
    clean: Float[np.ndarray, " row"]
    corrupted: Float[np.ndarray, " row"]
    prefix: int


@functools.partial(jax.jit, static_argnames=("network", "metric", "prefix"))
def _into(
    network: Network,
    params,
    base: Base,
    change: Float[Array, "cell batch rest embedding"],
    receiver: Array,
    reference: Array,
    *,
    metric: Metric,
    prefix: int,
) -> Float[Array, "cell batch"]:
    """The metric where each change is added to the stream that enters the receiver."""
    asked = base.inputs.prompts
    memory = network.remember(params, asked.tokens[0, :prefix])
    entering = jax.lax.dynamic_index_in_dim(base.entering, receiver, keepdims=False)

    def run(added):
        stream = network.resume(
            params,
            (entering + added)[None],
            receiver,
            asked.tokens,
            asked.valid,
            memory=memory,
            prefix=prefix,
        )
        ends = take_last(stream[0], asked.last - prefix)
        return metric(network, params, ends, asked, reference)

    return jax.lax.map(run, change)
