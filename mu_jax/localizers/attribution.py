"""Attribution patching: what every site would do if patched, from one gradient.

Nanda's linearisation, as in method §4.2. With f(w) the metric of a base run whose sites
move towards a donor run (`patching`), the score of a site is the derivative of

    f(w) / (m_clean - m_corrupt)

with respect to its weight at 0, summed over rows and positions: -1 for all of the
effect when noising (clean base, corrupt donors: the paper's), 1 when denoising, the
derivative of causal tracing. With steps, integrated gradients: the mean derivative

    together   along w = t * 1: the scores of all sites add up to f(1) - f(0)
    apart      along w = t * e_i, site by site: as steps grow, exhaustive patching
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, OtherSubject
from mu_jax.facts.tokens import batches, shared_prefix
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric
from mu_jax.localizers.patching import (
    Inputs,
    checked,
    constant_weights,
    corruptions,
    effect,
    fingerprint,
    known_kinds,
    measure,
    midpoints,
    patched,
    record,
)
from mu_jax.localizers.roles import ROLES, roles
from mu_jax.localizers.sweep import Cell, base, sites_of, sweep
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, Scores, Site, silent


def told(notes: Mapping[str, Any]) -> dict[str, str]:
    """Heading and caption of such scores."""
    return {
        "heading": "What the output depends on",
        "caption": f"Attribution patching over {notes['rows']} prompts"
        f" ({notes['direction']}): the derivative of the normalised"
        f" {notes['metric']} (clean 0, corrupt -1 when noising) if a component"
        " moved to the other run, by layer and position.",
    }


PAPER = ("query", "key", "value", "head", "mlp_in", "mlp")
"""What the paper's runs add up to an attention and an MLP score."""


@dataclasses.dataclass(frozen=True)
class AttributionPatching:
    """Scores of attention outputs, MLP outputs, heads, neurons: one backward pass.

    Attributes:
      kinds: the kinds of sites scored: attn, mlp, resid, head, neuron and the others of
        `model.taps.KINDS`.
      corruption: of the subject; noise is averaged over its draws.
      metric: what is differentiated.
      direction: `noising`, as in the paper, or `denoising`, like causal tracing.
      steps: of the path integral; 0 is the plain derivative.
      together: whether all sites move together along that path.
      rows: at most this many prompts, the first ones.
      batch: rows differentiated together; the sum over batches is exact.
      top_neurons: how many neurons, the largest, are kept in the scores.
      mode: `clean`, or `paper` (see `mu_jax.localizers`).
    """

    kinds: tuple[str, ...] = ("attn", "mlp", "resid", "head")
    corruption: Corruption = OtherSubject()
    metric: Metric = LogitDiff()
    direction: str = "noising"
    steps: int = 0
    together: bool = True
    rows: int = 64
    batch: int = 16
    top_neurons: int = 100
    mode: str = "clean"

    needs: ClassVar[Needs] = "pairs"

    def __post_init__(self):
        if self.direction not in ("noising", "denoising"):
            raise UserError(f"the direction {self.direction!r}", "noising or denoising")
        if self.mode not in ("clean", "paper"):
            raise UserError(f"the mode {self.mode!r}", "clean or paper")
        known_kinds(self.kinds, neurons=self.together)
        if self.steps < 0:
            raise UserError(f"attribution.steps {self.steps}", "0 or more")
        if not self.together and self.steps < 1:
            raise UserError("sites moved apart in 0 steps", "steps of at least 1")

    @classmethod
    def paper(cls, **changes: Any) -> "AttributionPatching":
        """As the paper's runs had it: see the table in `mu_jax.localizers`."""
        fixed: dict[str, Any] = {
            "kinds": PAPER,
            "metric": LogitDiff(pooled=True),
            "rows": 80,
            "batch": 10,
            "mode": "paper",
        }
        return cls(**(fixed | changes))

    def __call__(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,  # quick: nothing is kept
    ) -> Scores:
        """Signed sums over rows and positions, ranked by magnitude.

        The tables hold [layer, role] for each kind and [layer, head]; the notes the
        mean over rows of the absolute row score, which signs cannot cancel in.
        """
        clean, corrupt = (p.rows(slice(self.rows)) for p in (clean, corrupt))
        if self.together:
            maps = self.maps(model, clean, corrupt, progress)
            per_row = {
                k: a if k == "neuron" else a.sum(axis=2) for k, a in maps.items()
            }
        else:
            maps, per_row = {}, self.apart(model, clean, corrupt, progress)
        values, absolute = {}, {}
        for kind, array in per_row.items():  # [layer, row, (head or neuron)]
            total, mean = array.sum(axis=1), np.abs(array).mean(axis=1)
            for index in self._ranked(kind, total):
                site = Site(index[0], kind, *index[1:])
                values[site] = float(total[index])
                absolute[str(site)] = float(mean[index])
        tables, axes = self._tables(maps, per_row, roles(clean))
        if self.mode == "paper":
            values = _paper_sums(values, model.spec.layers)
        notes = {
            "rows": len(clean.tokens),
            "prompts": fingerprint(clean, corrupt, self.corruption),
            "metric": self.metric.name,
            "direction": self.direction,
            "measures": "derivative",
            "steps": self.steps,
            "mode": self.mode,
            "mean_absolute_row_score": absolute,
        }
        return Scores("attribution", values, tables, axes, notes, **told(notes))

    def maps(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> dict[str, np.ndarray]:
        """{kind: [layer, row, seq(, head)]} the score at every position.

        For neurons [layer, row, neuron], summed over positions.
        """
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        runs = list(corruptions(model, clean, corrupt, self.corruption, prefix))
        path = midpoints(self.steps) or [0.0]
        total, done = len(clean.tokens), 0
        parts = len(runs) * len(path) * total
        progress("attribution patching", 0, parts)
        sums: dict[str, np.ndarray] = {}
        ends = np.zeros(2)
        for corrupted in runs:
            for index, n in batches(total, self.batch):
                both = Inputs(clean).rows(index), corrupted.rows(index)
                for t in path:
                    gradient, values = _gradient(
                        model.network,
                        model.params,
                        *both,
                        np.asarray(t, model.params["embedder"].dtype),
                        kinds=self.kinds,
                        metric=self.metric,
                        prefix=prefix,
                        noising=self.direction == "noising",
                        plain=not self.steps,
                    )
                    for kind, array in gradient.items():
                        part = fetch(array)[:, :n]
                        shape = (part.shape[0], total, *part.shape[2:])
                        whole = sums.setdefault(kind, np.zeros(shape, part.dtype))
                        whole[:, index[:n]] += part / (len(runs) * len(path))
                    done += n
                    progress("attribution patching", done, parts)
                ends += fetch(values)[:, :n].sum(axis=1) / len(runs)
        gap = effect(*ends, self.metric)
        out = {kind: array / gap for kind, array in sums.items()}
        for kind in self.kinds:
            if kind != "neuron":  # nothing differs inside the prefix
                pad = [(0, 0)] * out[kind].ndim
                pad[2] = (prefix, 0)
                out[kind] = np.pad(out[kind], pad)
        return out

    def apart(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> dict[str, Float[np.ndarray, "layer row *head"]]:
        """Integrated gradients of one site at a time, all its positions together.

        Costs two forward passes a site and step, and converges to patching the site.
        """
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        layers = model.spec.layers
        sites = {kind: sites_of(kind, model.spec) for kind in self.kinds}
        cells = [Cell((site,)) for members in sites.values() for site in members]
        runs = list(corruptions(model, clean, corrupt, self.corruption, prefix))
        noising = self.direction == "noising"
        slopes, ends = [], np.zeros(2)
        for number, corrupted in enumerate(runs):
            start, finish = (Inputs(clean), corrupted)[:: 1 if noising else -1]
            finish_end, donors = record(
                model.network, model.params, finish, kinds=self.kinds, prefix=prefix
            )
            made, start_end = base(model, start, donors, prefix)
            both = (start_end, finish_end)[:: 1 if noising else -1]  # clean, corrupt
            ends += np.array([self._judge(model, end, clean, both[0]) for end in both])
            reference = self.metric.reference(model.network, model.params, both[0])
            for t in midpoints(self.steps):
                slopes.append(
                    sweep(
                        model,
                        made,
                        cells,
                        self.metric,
                        reference,
                        prefix=prefix,
                        batch=4,
                        weight=t,
                        slope=True,
                        name=f"run {number} at {t:.3f} ",
                        progress=progress,
                    )
                )
        flat = np.mean(slopes, axis=0) * len(runs) / effect(*ends, self.metric)
        out, start = {}, 0
        for kind, members in sites.items():
            part = flat[start : start + len(members)].reshape(layers, -1, flat.shape[1])
            part = np.moveaxis(part, 1, 2)
            out[kind] = part if kind == "head" else part[:, :, 0]
            start += len(members)
        return out

    def _judge(self, model: Model, end: Array, clean: Prompts, clean_end: Array):
        """The metric of runs that end in `end`, summed over rows."""
        rows = measure(
            model.network, model.params, end, clean, clean_end, metric=self.metric
        )
        return fetch(rows).sum()

    def _ranked(self, kind: str, total: np.ndarray) -> Iterator[tuple[int, ...]]:
        """The indices of a kind's sites that are kept: all, but for neurons the top."""
        if kind != "neuron":
            yield from np.ndindex(total.shape)
            return
        order = np.argsort(-np.abs(total), axis=None, kind="stable")
        for flat in order[: self.top_neurons].tolist():
            yield divmod(flat, total.shape[1])

    def _tables(
        self,
        maps: Mapping[str, np.ndarray],
        per_row: Mapping[str, np.ndarray],
        where: np.ndarray,
    ):
        """[layer, role] a kind, [layer, head], and the columns of each."""
        tables, axes = {}, {}
        for kind, array in maps.items():
            if array.ndim == 4:
                array = array.sum(axis=3)
            if kind not in ("head", "neuron"):
                weights = where.astype(array.dtype)
                tables[kind] = np.einsum("lbs,bsr->lr", array, weights).tolist()
                axes[kind] = ROLES
        if "head" in per_row:
            heads = per_row["head"].sum(axis=1)
            tables["head"] = heads.tolist()
            axes["head"] = [f"head {i}" for i in range(heads.shape[1])]
        return tables, axes


@functools.partial(
    jax.jit,
    static_argnames=("network", "kinds", "metric", "prefix", "noising", "plain"),
)
def _gradient(
    network,
    params,
    clean: Inputs,
    corrupt: Inputs,
    at: Float[Array, ""],
    *,
    kinds: tuple[str, ...],
    metric: Metric,
    prefix: int,
    noising: bool,
    plain: bool,
):
    """d sum(f) / d weight where all weights are `at`; [2, batch] f(clean), f(corrupt).

    The gradient of each kind has the shape of its weights. If `plain`, `at` is 0: then
    the pass that is differentiated is the start itself, and measures it as well.
    """
    start, finish = (clean, corrupt) if noising else (corrupt, clean)
    finish_end, donors = record(network, params, finish, kinds=kinds, prefix=prefix)
    start_end = finish_end
    if not plain or (noising and metric.remembers):
        start_end, _ = record(network, params, start, kinds=(), prefix=prefix)
    clean_end = start_end if noising else finish_end
    reference = metric.reference(network, params, clean_end)

    def total(weights):
        rows = patched(
            network, params, start, weights, donors, metric, reference, prefix
        )
        return rows.sum(), rows

    gradient, rows = jax.grad(total, has_aux=True)(constant_weights(donors, at))
    judge = lambda end: metric(network, params, end, clean.prompts, reference)
    ends = [rows if plain else judge(start_end), judge(finish_end)]
    return gradient, jnp.stack(ends if noising else ends[::-1])


def _paper_sums(values: Mapping[Site, float], layers: int) -> dict[Site, float]:
    """The paper's scores: attention over q, k, v and result, MLPs over in and out."""
    parts = {"attn": PAPER[:4], "mlp": PAPER[4:]}
    return {
        Site(layer, kind): sum(
            v for s, v in values.items() if s.layer == layer and s.kind in members
        )
        for kind, members in parts.items()
        for layer in range(layers)
    }
