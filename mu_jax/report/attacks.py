"""Does the fact stay gone? What each attack brings back, at its worst point."""

import dataclasses
import functools
from typing import TypeGuard

import numpy as np

from mu_jax.attacks.scoring import BEFORE, ORIGINAL, TWINS
from mu_jax.report.grid import Entry, Estimates, Grid
from mu_jax.report.tables import INTERVALS, Measure, Table, Values
from mu_jax.statistics import Estimate, estimate, recovered
from mu_jax.types import UNEDITED, Row

CONTROL = "never_knew"
METRIC = "choice_p_true"


def names(table: Table) -> list[str]:
    """The attacks, in order: what was measured before and after."""
    return list(dict.fromkeys(r.eval for r in table.rows if r.at == BEFORE))


@dataclasses.dataclass(frozen=True)
class Attacked:
    """One attack on one model: what it made of the facts, at any point of its curve.

    Everything is the probability of the true answer over the options, in the first
    format the attacker asked in, the training prompt.
    """

    table: Table
    attack: str
    model: str

    @functools.cached_property
    def rows(self) -> list[Row]:
        found = [r for r in self.table.of(self.attack) if r.model == self.model]
        return [r for r in found if r.prompt == found[0].prompt and r.metric == METRIC]

    @functools.cached_property
    def points(self) -> list[str]:
        """Where on its curve it was scored."""
        found = (r.at for r in self.rows if r.at not in (BEFORE, ORIGINAL))
        return list(dict.fromkeys(at for at in found if not at.endswith(TWINS)))

    @functools.cached_property
    def peak(self) -> str | None:
        """The point with the largest mean on the forgotten facts; None before any."""
        return self._peak(slice(None))

    @functools.cached_property
    def worst(self) -> tuple[str, str] | None:
        """The points to report for the even and for the odd of the forgotten facts.

        Each is the worst on the other facts: no fact is scored where it was itself
        looked at to choose. One fact alone is, and a curve of one point has no choice.
        """
        if (peak := self.peak) is None:
            return None
        chosen = [self._peak(slice(start, None, 2)) for start in (1, 0)]
        return chosen[0] or peak, chosen[1] or peak

    def _peak(self, facts: slice) -> str | None:
        found = ((at, self.values(at)) for at in self.points)
        means = {
            at: values[:, facts].mean()
            for at, values in found
            if _whole(values) and np.ma.count(values[:, facts])
        }
        return max(means, key=lambda at: means[at]) if means else None

    def at_worst(self, split: str = "forget") -> Values | None:
        """[seeds, n] the values at `worst`."""
        return self.worst and self.at(self.worst, split)

    def at(self, points: tuple[str, str], split: str = "forget") -> Values | None:
        """[seeds, n] the even facts at one point, the odd ones at another.

        Of held-out facts, which choose no point, the mean of both.
        """
        even, odd = (self.values(at, split) for at in points)
        if even is None or odd is None or even.shape != odd.shape:
            return None
        if split == "heldout":
            return (even + odd) / 2
        return np.ma.where(np.arange(even.shape[1]) % 2, odd, even)

    def worst_estimates(self, split: str = "forget") -> Estimates:
        return _estimated(self.at_worst(split))

    @functools.cached_property
    def ceiling(self) -> Values | None:
        """[seeds, n] what the attack makes of the unedited model, at the same points.

        Of an attack that needs an edit, what that says without any.
        """
        own = set(self.seeds(self.worst[0])) if self.worst else set()
        table = self.table.only(lambda r: r.model == UNEDITED and r.seed in own)
        unedited = dataclasses.replace(self, table=table, model=UNEDITED)
        if self.worst is None or not unedited.points:
            return self.values(ORIGINAL)
        return unedited.at(self.worst)

    def measure(self, at: str, split: str = "forget") -> Measure:
        """What was measured there; of a control the one that learned from twins."""
        prompt = self.rows[0].prompt if self.rows else ""
        learned = f"{at}{TWINS}"
        if split == CONTROL and any(row.at == learned for row in self.rows):
            at = learned
        return Measure("", self.attack, split, prompt, METRIC, at)

    def values(self, at: str, split: str = "forget") -> Values | None:
        """[seeds, n] the values there; of the most seeds that can be stacked."""
        found = self.table.values(self.model, self.measure(at, split))
        return max(found, key=len) if found else None

    def estimates(self, at: str, split: str = "forget") -> Estimates:
        return self.table.estimates(self.model, self.measure(at, split))

    def seeds(self, at: str) -> tuple[int, ...]:
        """Which seeds attacked there."""
        found = self.table.found(self.model, self.measure(at))
        return tuple(sorted(row.seed for row in found))

    def recovered(self) -> Estimate | None:
        """`statistics.recovered` at `worst`; None where there is nothing to recover."""
        after, control, ceiling = self.at_worst(), self.at_worst(CONTROL), self.ceiling
        if not (_whole(after) and _whole(control) and _whole(ceiling)):
            return None
        if not after.shape == control.shape == ceiling.shape:
            return None
        return recovered(after, control, ceiling)

    @property
    def where(self) -> str:
        """The points of `worst`, in words."""
        return " / ".join(dict.fromkeys(self.worst or ()))

    @property
    def budget(self) -> str:
        """What an attacker spends there."""
        spent = {r.at: r.budget for r in self.rows}
        return " / ".join(dict.fromkeys(spent[at] for at in self.worst or ()))


def attacked(table: Table) -> list[Attacked]:
    """Every attack on every edited model that went as far as a first point."""
    edited = [model for model in table.models if model != UNEDITED]
    pairs = [Attacked(table, a, model) for a in names(table) for model in edited]
    return [one for one in pairs if one.peak is not None]


def worst_cases(table: Table) -> Grid | None:
    """A line an attack and model; None where nothing was attacked."""
    lines: list[tuple[Entry, ...]] = []
    for one in attacked(table):
        share = one.recovered()
        lines.append(
            (
                one.attack,
                one.model,
                one.estimates(ORIGINAL),
                _estimated(one.ceiling),
                one.estimates(BEFORE),
                one.worst_estimates(),
                one.worst_estimates(CONTROL),
                (share,) if share else "-",
                one.estimates(BEFORE, "heldout"),
                one.worst_estimates("heldout"),
                one.where,
                one.budget,
            )
        )
    if not lines:
        return None
    return Grid(
        "Attacks: does the fact stay gone?",
        "Probability of the true answer over the options, in the training prompt, of"
        " forgotten facts that the attacker was not taught: by the unedited model,"
        " before and under the same attack, by the edited one before and after (lower:"
        " it stays gone). Never knew: the same question about subjects that do not"
        " exist, after the same attack, which learned from such subjects if it learned"
        " from facts; their answers it taught rather than recovered. Recovered: (after"
        " - never knew) / (unedited - never knew), all three under the attack, 0"
        " nothing, 1 all is back; a dash where what there is to recover does"
        " not stand out from the scatter of facts and seeds. Held-out: what the attack"
        " left of facts to be kept. After: at the worst point of the attack's curve,"
        " which has the highest mean; each half of the facts where the other half says"
        f" that it is. {INTERVALS}",
        (
            *("attack", "model", "unedited", "unedited after"),
            *("before", "after", "never knew after"),
            *("recovered", "held-out before", "held-out after", "worst at", "budget"),
        ),
        tuple(lines),
        heads=2,
    )


def every_point(table: Table, attack: str) -> Grid:
    """All points of an attack's curve, on every model."""
    lines: list[tuple[Entry, ...]] = []
    every = [Attacked(table, attack, model) for model in table.models]
    spared = [one.model for one in every if not one.rows]
    for one in every:
        if not one.rows:
            continue
        for at in (ORIGINAL, BEFORE, *one.points):
            splits = ("forget", CONTROL, "heldout")
            lines.append((one.model, at, *(one.estimates(at, s) for s in splits)))
    return Grid(
        f"Attack {attack}, every point",
        "Probability of the true answer over the options, in the training prompt."
        f" {INTERVALS}" + f" Not attacked: {', '.join(spared)}." * bool(spared),
        ("model", "at", "forget", "never knew", "held-out"),
        tuple(lines),
        heads=2,
    )


def gap(left: Attacked, right: Attacked) -> tuple[Values, Values] | None:
    """Both at their own worst point, if the same seeds asked about as many facts."""
    if left.worst is None or right.worst is None:
        return None
    if left.seeds(left.worst[0]) != right.seeds(right.worst[0]):
        return None
    a, b = left.at_worst(), right.at_worst()
    if not (_whole(a) and _whole(b)) or a.shape != b.shape:
        return None
    return a, b


def _estimated(values: Values | None) -> Estimates:
    return () if values is None else (estimate(values, share=True),)


def _whole(values: Values | None) -> TypeGuard[Values]:
    """Whether something was measured, and gave numbers: an attack can break a model."""
    return values is not None and bool(np.isfinite(values).all())
