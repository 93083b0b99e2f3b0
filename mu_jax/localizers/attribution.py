"""Attribution patching: what every site would do if patched, from one gradient.

Nanda's linearisation, as in method §4.2. The score of a site is the `derivative` of the
metric with respect to the site's weight, summed over rows and positions: -1 for all of
the effect when noising (clean base, corrupt donors: the paper's), 1 when denoising, the
derivative of causal tracing.
"""

import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import numpy as np

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import Corruption, OtherSubject
from mu_jax.localizers.derivative import Derivative
from mu_jax.localizers.localizer import Needs
from mu_jax.localizers.metrics import LogitDiff, Metric
from mu_jax.localizers.patching import fingerprint, known_kinds
from mu_jax.localizers.roles import ROLES, roles
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
            maps = {}
            per_row = self._derivative.apart(model, clean, corrupt, progress)
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
        return self._derivative.together(model, clean, corrupt, self.batch, progress)

    @property
    def _derivative(self) -> Derivative:
        noising = self.direction == "noising"
        return Derivative(self.kinds, self.corruption, self.metric, noising, self.steps)

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
