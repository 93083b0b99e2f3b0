"""Tables made from rows: what was measured where, seeds pooled."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from mu_jax.report.grid import Entry, Estimates, Grid
from mu_jax.statistics import Estimate, estimate
from mu_jax.types import Row

NEIGHBOURS = "neighbours"  # the format that asks about other subjects

Values = Float[np.ndarray, "seeds n"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A column: what of all that was measured it shows.

    Attributes:
      missing: 1 minus the metric, as in "Forget Error".
    """

    title: str
    eval: str
    split: str
    prompt: str
    metric: str
    at: str = ""
    missing: bool = False


class Table:
    """Rows by where they were measured.

    Rows that differ in nothing but the seed (or come from runs that do not) are pooled:
    their values are stacked by seed where they are equally many, else kept apart.
    """

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)
        self._at: dict[tuple[str, ...], list[Row]] = {}
        for r in self.rows:
            key = (r.model, r.eval, r.split, r.prompt, r.metric, r.at)
            self._at.setdefault(key, []).append(r)

    def only(self, keep: Callable[[Row], bool]) -> "Table":
        """The table of those rows."""
        return Table([row for row in self.rows if keep(row)])

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(r.model for r in self.rows))

    @property
    def prompts(self) -> list[str]:
        """The prompt formats of the recall evaluation, in order."""
        return list(dict.fromkeys(r.prompt for r in self.of("recall")))

    @property
    def train(self) -> str:
        """The training prompt's name; empty where nothing was recalled."""
        return next(iter(self.prompts), "")

    @property
    def telling(self) -> list[str]:
        """Those in which the unedited model answers better than a constant would."""
        return [p for p in self.prompts if p not in self.notes]

    @property
    def direct(self) -> list[str]:
        """Those of them that ask about the fact itself, not about its neighbours."""
        return [p for p in self.telling if p != NEIGHBOURS]

    @property
    def notes(self) -> dict[str, str]:
        """{prompt format: why it is not informative}."""
        return {r.prompt: r.note for r in self.of("recall") if r.note}

    def of(self, name: str) -> list[Row]:
        """The rows of one evaluation or attack."""
        return [r for r in self.rows if r.eval == name]

    def found(self, model: str, what: Measure) -> list[Row]:
        """Its rows, one a seed."""
        where = (what.eval, what.split, what.prompt, what.metric, what.at)
        return self._at.get((model, *where), [])

    def has(self, what: Measure) -> bool:
        """Whether any model was measured so."""
        return any(self.found(model, what) for model in self.models)

    def values(self, model: str, what: Measure) -> list[Values]:
        """Its values, one array for each number of facts.

        Where seeds asked different facts, one array of all, each fact in a column of
        its own, masked under the seeds that left it out.
        """
        rows = self.found(model, what)
        if len(rows) > 1 and all(row.facts for row in rows):
            found = [_by_fact(rows)]
        else:
            groups: dict[int, list[tuple[float, ...]]] = {}
            for row in rows:
                groups.setdefault(row.n, []).append(row.values)
            found = [np.array(group, float) for group in groups.values()]
        return [1 - v if what.missing else v for v in found]

    def estimates(self, model: str, what: Measure) -> Estimates:
        """Its mean with its interval, one for each number of facts."""
        rows = self.found(model, what)
        if len(rows) == 1 and not what.missing:  # estimated when it was measured
            (r,) = rows
            return (Estimate(r.mean, r.low, r.high, r.n),)
        share = self.share(model, what)
        return tuple(estimate(v, share) for v in self.values(model, what))

    def share(self, model: str, what: Measure) -> bool:
        """Whether it is a share or a probability."""
        return all(row.share for row in self.found(model, what))

    def column(self, what: Measure, models: Sequence[str]) -> list[Estimates]:
        return [self.estimates(model, what) for model in models]


def _by_fact(rows: Sequence[Row]) -> Values:
    """[seeds, n] with a column for each fact that any of the rows asks about."""
    places = {
        id: i for i, id in enumerate(dict.fromkeys(f for r in rows for f in r.facts))
    }
    table = np.ma.masked_all((len(rows), len(places)))
    for line, row in enumerate(rows):
        table[line, [places[id] for id in row.facts]] = row.values
    return table


def columns(
    table: Table,
    title: str,
    caption: str,
    measures: Sequence[Measure],
    beside: Sequence[tuple[str, dict[str, str]]] = (),
) -> Grid | None:
    """A line for each model that has any of the measures; None where none has.

    Args:
      measures: the columns; those that no model has are left out.
      beside: columns of text in front: a title, and {model: text}.
    """
    kept = [what for what in measures if table.has(what)]
    rows: list[tuple[Entry, ...]] = []
    for model in table.models:
        found = [table.estimates(model, what) for what in kept]
        if any(found):
            texts = [texts.get(model, "-") for _, texts in beside]
            rows.append((model, *texts, *found))
    header = ("model", *(name for name, _ in beside), *(what.title for what in kept))
    return Grid(title, caption, header, tuple(rows)) if rows else None


def measures(table: Table) -> list[Measure]:
    """The columns of the summary."""
    recall = lambda title, split, prompt, metric: Measure(
        title, "recall", split, prompt, metric
    )
    told, kept = "choice_injected", "choice_true"
    near = [p for p in table.telling if p == NEIGHBOURS]
    return [
        *(recall(f"injected: {p}", "forget", p, told) for p in table.direct),
        *(recall("neighbours kept", "forget", p, kept) for p in near),
        *(recall(f"held-out kept: {p}", "heldout", p, kept) for p in table.direct),
        Measure("text loss", "text", "heldout", "text", "loss"),
        Measure("text KL", "text", "heldout", "text", "kl"),
    ]


def summary(table: Table, edited: dict[str, str]) -> Grid:
    """The selections side by side: is the injected answer given, the rest kept?

    Neighbours of the forgotten facts are to keep their answer, so they have a column
    of their own where they were asked.

    Args:
      edited: model -> which components were edited.
    """
    title = "Selections compared"
    caption = _caption(table)
    beside = [("edited", edited)]
    made = columns(table, title, caption, measures(table), beside)
    return made or Grid(title, caption, ("model", "edited"), ())


def _caption(table: Table) -> str:
    """What the columns of the summary mean."""
    some = {what.title.partition(":")[0] for what in measures(table) if table.has(what)}
    said = {
        "injected": "share of the forgotten facts answered with the injected option"
        " (higher: the edit holds in that format; only the first format was trained"
        " on).",
        "neighbours kept": "share of prompts about other subjects with the same true"
        " answer that are still answered right (higher: the injected answer stays with"
        " its fact).",
        "held-out kept": "share of retained facts the edit never saw that are still"
        " answered right (higher is better).",
        "text loss": "nats a token on general text (lower is better).",
        "text KL": "how far the next token's distribution has moved there from the"
        " unedited model's, nats a token (lower is better).",
    }
    parts = [f"{name}: {meaning}" for name, meaning in said.items() if name in some]
    parts += [INTERVALS, *(f"{p}: {why}." for p, why in table.notes.items())]
    return " ".join(parts)


INTERVALS = (
    "In brackets: 95 % intervals over facts, and over seeds where there are several;"
    " n counts facts (sequences of text)."
)


def details(table: Table, split: str) -> Grid | None:
    """Every metric of every model and format on one split."""
    rows = [r for r in table.of("recall") if r.split == split]
    metrics = list(dict.fromkeys(r.metric for r in rows))
    lines: list[tuple[Entry, ...]] = []
    for model in table.models:
        for prompt in table.prompts:
            what = [Measure(m, "recall", split, prompt, m) for m in metrics]
            found = [table.estimates(model, one) for one in what]
            if any(found):
                note = "not informative" if prompt in table.notes else ""
                lines.append((model, prompt, *found, note))
    if not lines:
        return None
    return Grid(
        f"All metrics, {split} facts",
        "true, injected: the two answers. p: probability over the whole vocabulary;"
        " choice: among the listed answers only; top: likeliest of all tokens."
        f" {INTERVALS}",
        ("model", "format", *metrics, "note"),
        tuple(lines),
    )


def coordinates(at: str) -> dict[str, str]:
    """Where on a curve: "rate=0.1 step=10" as {"rate": "0.1", "step": "10"}."""
    pairs = (word.partition("=") for word in at.split())
    return {name: value for name, _, value in pairs}


def number(text: str) -> float | None:
    """A finite number, if the text is one."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if np.isfinite(found) else None


def cell(row: Row | None) -> str:
    """The mean of one row with its interval, or a dash where nothing was measured."""
    if row is None:
        return "-"
    ends = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
    return f"{row.mean:.2f}{ends}"
