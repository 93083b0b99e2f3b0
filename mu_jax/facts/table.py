"""CSV files, read through `datasets` and checked row by row."""

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mu_jax.errors import UserError


class Record(dict[str, str]):
    """One row of a table, and the line of the file on which it ends."""

    def __init__(self, values: dict[str, str], line: int):
        super().__init__(values)
        self.line = line


def read_csv(path: str, required: Sequence[str]) -> list[Record]:
    """The rows of a CSV file, all values stripped strings.

    Raises:
      UserError: no such file, no rows, a missing column, or a row that is malformed or
        has an empty required cell (naming the file, the line and the reason).
    """
    header, lines = _check(path, required)
    import datasets
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    names = [f"{i}" for i in range(len(header))]  # the file's own may be empty or equal
    with tempfile.TemporaryDirectory() as cache:
        table = datasets.Dataset.from_csv(
            path,
            cache_dir=cache,
            keep_in_memory=True,
            features=datasets.Features(dict.fromkeys(names, datasets.Value("string"))),
            names=names,
            header=0,
            keep_default_na=False,
            encoding="utf-8-sig",
        )
        cells = [[row[name].strip() for name in names] for row in table.to_list()]
    rows = [dict(zip(header, row, strict=True)) for row in cells]
    return [Record(row, line) for row, line in zip(rows, lines, strict=True)]


def _check(path: str, required: Sequence[str]) -> tuple[list[str], list[int]]:
    """The header, and the last line of every row.

    Raises:
      UserError: what `read_csv` refuses; of several wrong rows the first.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    lines: list[int] = []
    end = 0  # the last line of the row before
    try:
        header = next(reader, [])
        missing = [c for c in required if c not in header]
        if missing:
            raise UserError(
                f"{path} has the columns {', '.join(header) or '(none)'}",
                f"also {', '.join(missing)}",
                "name the columns in the first line",
            )
        end = reader.line_num
        for row in reader:
            end = reader.line_num
            if not row:
                continue
            wrong = _wrong(row, header, required)
            if wrong:
                raise UserError(
                    f"{path}, line {end}: {wrong}",
                    f"{len(header)} cells ({', '.join(header[:6])})",
                    "correct the row or remove it",
                )
            lines.append(end)
    except csv.Error as error:
        raise UserError(
            f"{path}, line {end + 1}: {error}",
            "comma-separated text, with quotes in pairs",
            "correct the row or remove it",
        ) from None
    if not lines:
        raise UserError(f"{path} has no rows", "at least one fact", "add rows")
    return header, lines


def _text(path: str) -> str:
    """The whole file, decoded."""
    if not Path(path).is_file():
        raise UserError(
            f"no file {path}", "the path of a CSV file", "check the path's spelling"
        )
    data = Path(path).read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: {error}",
            "comma-separated text in UTF-8",
            "save the file as UTF-8",
        ) from None


def _wrong(row: list[str], header: list[str], required: Sequence[str]) -> str:
    if len(row) != len(header):
        return f"{len(row)} cells"
    empty = [c for c in required if not row[header.index(c)].strip()]
    return f"no {empty[0]}" if empty else ""
