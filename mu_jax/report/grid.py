"""A table of text and estimates, for a page, for Markdown, for a terminal, as JSON.

A mean is never shown without its interval and its n: the interval stands beside it, or
beneath where room is short, and n in the title of a column all of whose cells share it,
else in the cell.
"""

import dataclasses
import html
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mu_jax.statistics import Estimate

Estimates = tuple[Estimate, ...]
"""Of one thing: one, none where it was not measured, several that cannot be pooled."""

Entry = str | Estimates


class Cell(NamedTuple):
    """What is shown of an entry: a number, its interval and its n, or plain text."""

    text: str
    interval: str = ""
    n: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: a title, what its numbers mean, a header, and rows.

    Attributes:
      signed: the numbers are differences: they carry a sign, and a star where their
        interval excludes 0.
      heads: how many columns, the first ones, say what a line is about.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    signed: bool = False
    heads: int = 1

    @property
    def titles(self) -> tuple[str, ...]:
        """The header, with the n that a whole column shares."""
        pairs = zip(self.header, self._shared, strict=True)
        return tuple(f"{plain(name)} {n}".rstrip() for name, n in pairs)

    @property
    def cells(self) -> tuple[tuple[tuple[Cell, ...], ...], ...]:
        """What to show, row by row and column by column: one or more cells a place."""
        digits = [_digits(column) for column in self._columns]
        return tuple(
            tuple(
                self._shown(entry, shared, places)
                for entry, shared, places in zip(row, self._shared, digits, strict=True)
            )
            for row in self.rows
        )

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        rows = [["; ".join(map(str, cell)) for cell in row] for row in self.cells]
        cells = [list(self.titles), ["---" for _ in self.header], *rows]
        lines = [f"### {plain(self.title)}", "", html.escape(plain(self.caption)), ""]
        lines += ["| " + " | ".join(map(_markdown, row)) + " |" for row in cells]
        return "\n".join(lines) + "\n"

    def record(self) -> dict[str, Any]:
        """The table as JSON's own types; a number that is none is null."""
        rows = [
            {name: _record(e) for name, e in zip(self.header, row, strict=True)}
            for row in self.rows
        ]
        return {"title": self.title, "caption": self.caption, "rows": rows}

    def lines(self) -> list[list[str]]:
        """Cells for a terminal: the interval beneath its mean."""
        return [
            [
                "\n".join(part for one in cell for part in one if part)
                for cell in row
            ]
            for row in self.cells
        ]  # fmt: skip

    def blocks(self, width: int) -> Iterator[list[int]]:
        """Columns that fit `width` characters side by side, the heads in each block."""
        lines = self.lines()
        sizes = [
            max([_widest(row[i].split("\n")) for row in lines] + [_widest(t.split())])
            for i, t in enumerate(self.titles)
        ]
        heads = list(range(self.heads))
        block = heads
        for i in range(self.heads, len(sizes)):
            if block != heads and sum(sizes[j] + 1 for j in [*block, i]) > width + 1:
                yield block
                block = heads
            block = [*block, i]
        yield block

    @property
    def _columns(self) -> list[list[Entry]]:
        return [[row[i] for row in self.rows] for i in range(len(self.header))]

    @property
    def _shared(self) -> list[str]:
        """The n that all estimates of a column have, or nothing."""
        found = [
            {_n(e) for entry in column if not isinstance(entry, str) for e in entry}
            for column in self._columns
        ]
        return [f"({ns.pop()})" if len(ns) == 1 else "" for ns in found]

    def _shown(self, entry: Entry, shared: str, places: int) -> tuple[Cell, ...]:
        if isinstance(entry, str):
            return (Cell(plain(entry)),)
        return tuple(
            Cell(
                _number(e.mean, places, self.signed) + ("*" if self._apart(e) else ""),
                _interval(e, places, self.signed),
                "" if shared else f"({_n(e)})",
            )
            for e in entry
        ) or (Cell("-"),)

    def _apart(self, e: Estimate) -> bool:
        return self.signed and e.low is not None and not e.low <= 0 <= (e.high or 0)


def plain(text: str) -> str:
    """One line in which every character can be seen: what a run holds is no command."""
    return "".join(c if c.isprintable() else "␣" for c in " ".join(text.split()))


def _n(e: Estimate) -> str:
    return f"n={e.n}" + (f" x {e.seeds} seeds" if e.seeds > 1 else "")


def _number(value: float, places: int, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{places}f}"
    return text.replace("-", "", 1) if not text.strip("+-0.") else text


def _interval(e: Estimate, places: int, signed: bool) -> str:
    if e.low is None or e.high is None:
        return ""
    return f"[{_number(e.low, places, signed)}, {_number(e.high, places, signed)}]"


def _digits(column: Sequence[Entry]) -> int:
    """Two digits, or three where all is so small that two would hide it."""
    numbers = [
        abs(x)
        for entry in column
        if not isinstance(entry, str)
        for e in entry
        for x in (e.mean, e.low, e.high)
        if x is not None and math.isfinite(x)
    ]
    return 3 if 0 < max(numbers, default=0) < 0.1 else 2


def _markdown(text: str) -> str:
    return html.escape(text.replace("|", "/"), quote=False)


def _record(entry: Entry) -> Any:
    if isinstance(entry, str):
        return entry
    finite = lambda x: x if x is not None and math.isfinite(x) else None
    found = [{k: finite(v) for k, v in e._asdict().items()} for e in entry]
    return found[0] if len(found) == 1 else found or None


def _widest(parts: Sequence[str]) -> int:
    return max(map(len, parts), default=0)
