"""Causal tracing: what returns if one site of a corrupt run is made clean again?

Method §4.1. The score of a component is the share of the effect that it restores,

    (m_patched - m_corrupt) / (m_clean - m_corrupt)         1 all of it, 0 nothing

each m a mean over rows and draws of noise; the component is restored at all positions.
The maps say the same of one position: by role over all rows, and token by token for one
prompt.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, GaussianNoise, OtherSubject
from mu_jax.facts.tokens import shared_prefix
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric, Probability
from mu_jax.localizers.patched_runs import EVERYWHERE, Cell, base, sites_of, sweep
from mu_jax.localizers.patching import (
    Inputs,
    checked,
    corruptions,
    effect,
    fingerprint,
    known_kinds,
    measure,
    record,
    subject_noise,
)
from mu_jax.localizers.roles import ROLES, roles
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, Scores, Site, silent


def told(notes: Mapping[str, Any]) -> dict[str, str]:
    """Heading and caption of such scores."""
    return {
        "heading": "What restores the answer",
        "caption": f"Causal tracing over {notes['rows']} prompts: the share of the"
        f" effect on the {notes['metric']} that returns when one kind of site of one"
        " layer is made clean in the corrupt run, by layer and by where the token"
        " stands.",
    }


@dataclasses.dataclass(frozen=True)
class CausalTracing:
    """Restores sites one at a time, exhaustively.

    Attributes:
      kinds: of sites restored: attn, mlp, head, resid.
      corruption: of the subject; noise is averaged over its draws.
      metric: what is restored. By default the logit difference, which another subject
        moves; the paper's is the `Probability` of the answer.
      window: layers restored together, around each one.
      by_role: the map of layers and roles as well: one cell a layer, kind and role.
      example: the row whose map is made token by token; negative for none.
      rows: at most this many prompts, the first ones.
      batch: cells run together, each with all rows.
      mode: `clean`, or `paper` (see `mu_jax.localizers`).
    """

    kinds: tuple[str, ...] = ("attn", "mlp", "resid")
    corruption: Corruption = OtherSubject()
    metric: Metric = LogitDiff()
    window: int = 1
    by_role: bool = True
    example: int = 0
    rows: int = 16
    batch: int = 4
    mode: str = "clean"

    needs: ClassVar[Needs] = "pairs"

    def __post_init__(self):
        if self.mode not in ("clean", "paper"):
            raise UserError(f"the mode {self.mode!r}", "clean or paper")
        known_kinds(self.kinds, neurons=False)
        if self.window < 1:
            raise UserError(f"a window of {self.window} layers", "at least 1")

    @classmethod
    def paper(cls, **changes) -> "CausalTracing":
        """As the paper's runs had it: see the table in `mu_jax.localizers`."""
        noise = GaussianNoise(per_row=True)
        metric = Probability(pooled=True)
        fixed: dict[str, Any] = {
            "kinds": ("head", "mlp"),
            "corruption": noise,
            "metric": metric,
            "by_role": False,
            "example": -1,
            "rows": 80,
            "mode": "paper",
        }
        return cls(**(fixed | changes))

    def __call__(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,
    ) -> Scores:
        """The share of the effect that each component restores.

        Args:
          corrupt: row by row as long as `clean`; not looked at if the corruption is
            noise.
          journal: what a sweep cut short has measured; filled as this one goes.

        Returns:
          A value for every component; in `tables` a map [layer, role] of each kind, and
          [layer, token] of the example; in the notes the standard error over rows.
        """
        clean, corrupt = (p.rows(slice(self.rows)) for p in (clean, corrupt))
        done = {} if journal is None else journal
        sites = [s for kind in self.kinds for s in sites_of(kind, model.spec)]
        whole = [self._cell(site, model) for site in sites]
        prefix = shared_prefix(clean, corrupt)  # nothing differs inside it
        differing = np.any(roles(clean)[:, prefix:], axis=(0, 1)).tolist()
        seen = [role for role, there in zip(ROLES, differing, strict=True) if there]
        maps = [k for k in self.kinds if k != "head"] if self.by_role else []
        by_role = [
            self._cell(Site(layer, kind), model, role)
            for kind in maps
            for layer in range(model.spec.layers)
            for role in seen
        ]
        shares = self.shares(model, clean, corrupt, whole + by_role, progress, done)
        per_site, per_role = shares[: len(whole)], shares[len(whole) :].mean(axis=1)
        values = dict(zip(sites, per_site.mean(axis=1).tolist(), strict=True))
        per_role = per_role.reshape(len(maps), model.spec.layers, len(seen))
        tables = {k: table.tolist() for k, table in zip(maps, per_role, strict=True)}
        axes = dict.fromkeys(maps, seen)
        if "head" in self.kinds:
            heads = [v for site, v in values.items() if site.kind == "head"]
            tables["head"] = np.reshape(heads, (model.spec.layers, -1)).tolist()
            axes["head"] = [f"head {h}" for h in range(model.spec.heads)]
        if 0 <= self.example < len(clean.tokens):
            row = np.array([self.example])
            one = clean.rows(row), corrupt.rows(row)
            for kind, table in self.token_maps(model, *one, progress, done).items():
                tables[f"example {kind}"] = table.tolist()
                axes[f"example {kind}"] = _spelled(model, one[0])
        if self.mode == "paper":
            values |= _signed_heads(values)
        notes = {
            "rows": len(clean.tokens),
            "prompts": fingerprint(clean, corrupt, self.corruption),
            "metric": self.metric.name,
            "measures": "effect",
            "mode": self.mode,
            "stderr": dict(zip(map(str, sites), _errors(per_site), strict=True)),
        }
        return Scores("tracing", values, tables, axes, notes, **told(notes))

    def token_maps(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
        done: MutableMapping[str, Any] | None = None,
    ) -> dict[str, Float[np.ndarray, "layer token"]]:
        """For prompts of one length: what each kind restores, token by token."""
        length = int(np.max(clean.last)) + 1
        prefix = shared_prefix(clean, corrupt)
        kinds = [kind for kind in self.kinds if kind != "head"]
        cells = [
            self._cell(Site(layer, kind), model, position)
            for kind in kinds
            for layer in range(model.spec.layers)
            for position in range(prefix, length)  # before it, nothing differs
        ]
        alone = dataclasses.replace(self, batch=self.batch * self.rows)
        shares = alone.shares(model, clean, corrupt, cells, progress, done, "example ")
        table = shares.mean(axis=1).reshape(len(kinds), model.spec.layers, -1)
        table = np.pad(table, ((0, 0), (0, 0), (prefix, 0)))
        return dict(zip(kinds, table, strict=True))

    def shares(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        cells: list[Cell],
        progress: Progress = silent,
        done: MutableMapping[str, Any] | None = None,
        name: str = "",
    ) -> Float[np.ndarray, "cell row"]:
        """The share of the mean effect that each row sees restored.

        Raises:
          UserError: clean and corrupt prompts of different length, a position outside
            the prompts, or a corruption without an effect.
        """
        patched, ends = self.trace(model, clean, corrupt, cells, progress, done, name)
        gap = effect(ends[0].mean(), ends[1].mean(), self.metric)
        return (patched - ends[1]) / gap

    def trace(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        cells: list[Cell],
        progress: Progress = silent,
        done: MutableMapping[str, Any] | None = None,
        name: str = "",
    ) -> tuple[Float[np.ndarray, "cell row"], Float[np.ndarray, "end row"]]:
        """The metric under each cell, and of the clean and the corrupt run.

        Means over the draws of the noise, where the corruption is noise.
        """
        checked(clean, corrupt)
        prefix = shared_prefix(clean, corrupt)
        ends, donors = record(
            model.network, model.params, Inputs(clean), kinds=self.kinds, prefix=prefix
        )
        judge = lambda at: fetch(
            measure(model.network, model.params, at, clean, ends, metric=self.metric)
        )
        reference = self.metric.reference(model.network, model.params, ends)
        patched, corrupted = [], []
        for draw, inputs, chosen in self._runs(model, clean, corrupt, prefix, cells):
            made, at = base(model, inputs, donors, prefix)
            corrupted.append(judge(at))
            if chosen:
                values = sweep(
                    model,
                    made,
                    chosen,
                    self.metric,
                    reference,
                    prefix=prefix,
                    batch=min(self.batch, len(chosen)),
                    done=done,
                    name=f"{name}{draw}",
                    progress=progress,
                )
                patched.append(values)
        if self.mode == "paper":  # one cell and one draw a run, the last without a cell
            return np.concatenate(patched), np.stack([judge(ends), corrupted[-1]])
        return np.mean(patched, axis=0), np.stack(
            [judge(ends), np.mean(corrupted, axis=0)]
        )

    def _runs(self, model, clean, corrupt, prefix, cells):
        """The corrupt runs: a name, the inputs, and the cells patched in each."""
        how = self.corruption
        if self.mode == "paper" and isinstance(how, GaussianNoise):
            for draw, chosen in enumerate([[cell] for cell in cells] + [[]]):
                noise = subject_noise(model, clean, how, prefix, draw)
                yield f"draw {draw} ", Inputs(clean, noise), chosen
            return
        several = isinstance(how, GaussianNoise)
        runs = corruptions(model, clean, corrupt, how, prefix)
        for draw, inputs in enumerate(runs):
            yield f"draw {draw} " if several else "", inputs, cells

    def _cell(self, site: Site, model: Model, where: str | int = EVERYWHERE) -> Cell:
        """A site with its window of layers."""
        below = (self.window - 1) // 2
        low = max(0, site.layer - below)
        high = min(model.spec.layers, site.layer - below + self.window)
        sites = (dataclasses.replace(site, layer=i) for i in range(low, high))
        return Cell(tuple(sites), where)


def _errors(per_site: Float[np.ndarray, "site row"]) -> list[float]:
    """The standard error of each site's mean over rows; 0 of a single row."""
    n = per_site.shape[1]
    return (per_site.std(axis=1, ddof=min(1, n - 1)) / np.sqrt(n)).tolist()


def _signed_heads(values: dict[Site, float]) -> dict[Site, float]:
    """The paper's score of an attention layer: the signed sum over its heads."""
    sums: dict[Site, float] = {}
    for site, value in values.items():
        if site.kind == "head":
            layer = Site(site.layer, "attn")
            sums[layer] = sums.get(layer, 0.0) + value
    return sums


def _spelled(model: Model, prompts: Prompts) -> list[str]:
    """The tokens of the first row as text."""
    tokens = prompts.tokens[0][np.asarray(prompts.valid[0])]
    tokenizer = model.tokenizer
    named = {tokenizer.bos: "<bos>", **tokenizer.markers}
    return [named.get(int(t)) or tokenizer.decode([t]) or f"<{t}>" for t in tokens]
