"""Differences, in pairs: what two models were both asked is compared fact by fact."""

from collections.abc import Sequence
from typing import NamedTuple

from mu_jax.report import attacks, paper
from mu_jax.report.attacks import Attacked
from mu_jax.report.grid import Entry, Estimates, Grid
from mu_jax.report.latent import depth
from mu_jax.report.tables import Measure, Table, measures
from mu_jax.statistics import difference
from mu_jax.types import UNEDITED


class Side(NamedTuple):
    """A model, and the table that its rows are in."""

    table: Table
    model: str


class Pair(NamedTuple):
    """Two models that were asked the same; `name` says which."""

    name: str
    left: Side
    right: Side


def within(table: Table) -> list[Pair]:
    """The first edited model against each other one."""
    first, *others = [m for m in table.models if m != UNEDITED] or [""]
    return [
        Pair(f"{first} - {other}", Side(table, first), Side(table, other))
        for other in others
    ]


def in_pairs(pairs: Sequence[Pair]) -> Grid | None:
    """A line a pair; None where there is nothing to compare.

    Measures that only one of a pair has, or of other facts, are left out.
    """
    if not pairs:
        return None
    table = pairs[0].left.table
    wanted = [*measures(table), paper.forget_error(table), depth(table)]
    names = attacks.names(table)
    lines: list[tuple[Entry, ...]] = []
    for pair in pairs:
        found = [_difference(pair, what) for what in wanted]
        lines.append((pair.name, *found, *(_after(pair, name) for name in names)))
    header = [what.title for what in wanted] + [f"after {name}" for name in names]
    kept = [i for i in range(len(header)) if any(line[i + 1] for line in lines)]
    if not kept:
        return None
    return Grid(
        "Differences, in pairs",
        "The first edited model of all minus each other one on the same facts, each"
        " fact (sequence of text) with itself, and each seed where both have as many."
        " After an attack: the probability that the true answer is back, at each"
        " model's own worst point (for each half of the facts, chosen on the other"
        " half). In brackets: 95 % intervals over facts and seeds; * where they"
        " exclude 0.",
        ("models", *(header[i] for i in kept)),
        tuple((line[0], *(line[i + 1] for i in kept)) for line in lines),
        signed=True,
    )


def _difference(pair: Pair, what: Measure) -> Estimates:
    (left, right) = (side.table.values(side.model, what) for side in pair[1:])
    if len(left) != 1 or len(right) != 1 or left[0].shape[1] != right[0].shape[1]:
        return ()
    share = all(side.table.share(side.model, what) for side in pair[1:])
    return (difference(left[0], right[0], share),)


def _after(pair: Pair, name: str) -> Estimates:
    left, right = (Attacked(side.table, name, side.model) for side in pair[1:])
    both = attacks.gap(left, right)
    return (difference(*both, share=True),) if both else ()
