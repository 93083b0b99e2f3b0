"""Tables made from rows: cells of text, ready for a terminal, a page or Markdown."""

import dataclasses
from collections.abc import Sequence

from mu_jax.types import Row

NEIGHBOURS = "neighbours"  # the format that asks about other subjects


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: a title, what its numbers mean, a header, and rows of text."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [f"### {self.title}", "", self.caption, ""]
        cells = [self.header, tuple("---" for _ in self.header), *self.rows]
        lines += [
            "| " + " | ".join(c.replace("|", "/") for c in r) + " |" for r in cells
        ]
        return "\n".join(lines) + "\n"


class Table:
    """Rows by where they were measured."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = list(rows)
        self._at = {(r.model, r.eval, r.split, r.prompt, r.metric): r for r in rows}

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(r.model for r in self.rows))

    @property
    def prompts(self) -> list[str]:
        """The prompt formats of the recall evaluation, in order."""
        found = (r.prompt for r in self.rows if r.eval == "recall")
        return list(dict.fromkeys(found))

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
        return {r.prompt: r.note for r in self.rows if r.note}

    def recall(self, model: str, split: str, prompt: str, metric: str) -> Row | None:
        return self._at.get((model, "recall", split, prompt, metric))

    def text(self, model: str) -> Row | None:
        return self._at.get((model, "text", "heldout", "text", "loss"))


def cell(row: Row | None, errors: bool = True) -> str:
    """A mean with its interval, or a dash where nothing was measured."""
    if row is None:
        return "-"
    if row.low is None or not errors:
        return f"{row.mean:.2f}"
    return f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"


def summary(table: Table, edited: dict[str, str], *, errors: bool = True) -> Grid:
    """The selections side by side: is the injected answer given, the rest kept?

    Neighbours of the forgotten facts are to keep their answer, so they have a column
    of their own where they were asked.

    Args:
      edited: model -> which components were edited.
      errors: with standard errors; a terminal has no room for them.
    """
    near = [p for p in table.telling if p == NEIGHBOURS]
    columns = [
        *((f"injected: {p}", "forget", p, "choice_injected") for p in table.direct),
        *(("neighbours kept", "forget", p, "choice_true") for p in near),
        *((f"held-out kept: {p}", "heldout", p, "choice_true") for p in table.direct),
    ]
    header = ["model", "edited", *(title for title, *_ in columns), "text loss"]
    rows = [
        [
            model,
            edited.get(model, "-"),
            *(cell(table.recall(model, *where), errors) for _, *where in columns),
            cell(table.text(model), errors),
        ]
        for model in table.models
    ]
    caption = _caption(table, bool(near), errors)
    return Grid("Selections compared", caption, tuple(header), tuple(map(tuple, rows)))


def _caption(table: Table, near: bool, errors: bool) -> str:
    """What the columns of the summary mean."""
    n = {
        split: next((r.n for r in table.rows if r.split == split), 0)
        for split in ("forget", "heldout")
    }
    parts = [
        f"injected: share of the {n['forget']} forgotten facts answered with the"
        " injected option (higher: the edit holds in that format; only the first"
        " format was trained on).",
        "neighbours kept: share of prompts about other subjects with the same true"
        " answer that are still answered right (higher: the injected answer stays with"
        " its fact)." * near,
        f"held-out kept: share of {n['heldout']} retained facts the edit never saw that"
        " are still answered right (higher is better).",
        "text loss: nats a token on general text (lower is better).",
        "In brackets: 95 % intervals, bootstrapped over facts." * errors,
        *(f"{p}: {why}." for p, why in table.notes.items()),
    ]
    return " ".join(part for part in parts if part)


def details(table: Table, split: str) -> Grid:
    """Every metric of every model and format on one split."""
    metrics = list(dict.fromkeys(r.metric for r in table.rows if r.eval == "recall"))
    rows = []
    for model in table.models:
        for prompt in table.prompts:
            found = [table.recall(model, split, prompt, m) for m in metrics]
            if any(found):
                note = "not informative" if prompt in table.notes else ""
                rows.append((model, prompt, *map(cell, found), note))
    return Grid(
        f"All metrics, {split} facts",
        "true, injected: the two answers. p: probability over the whole vocabulary;"
        " choice: among the listed answers only; top: likeliest of all tokens.",
        ("model", "format", *metrics, "note"),
        tuple(rows),
    )
