"""CSV files, read through `datasets` and checked row by row."""

import contextlib
import csv
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
    with tempfile.TemporaryDirectory() as cache:
        table = datasets.Dataset.from_csv(
            path,
            cache_dir=cache,
            keep_in_memory=True,
            features=datasets.Features(dict.fromkeys(header, datasets.Value("string"))),
            keep_default_na=False,
            encoding="utf-8-sig",
        )
        rows = [{k: v.strip() for k, v in row.items()} for row in table]
    return [Record(row, line) for row, line in zip(rows, lines, strict=True)]


def _check(path: str, required: Sequence[str]) -> tuple[list[str], list[int]]:
    """The header and the last line of every row; raises UserError for the first row that is wrong."""
    if not Path(path).is_file():
        raise UserError(
            f"no file {path}", "the path of a CSV file", "check the path's spelling"
        )
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, newline="", encoding="utf-8-sig"))
        reader = csv.reader(file, strict=True)
        lines: list[int] = []
        try:
            header = next(reader, [])
            missing = [c for c in required if c not in header]
            if missing:
                raise UserError(
                    f"{path} has the columns {', '.join(header) or '(none)'}",
                    f"also {', '.join(missing)}",
                    "name the columns in the first line",
                )
            for row in reader:
                if not row:
                    continue
                wrong = _wrong(row, header, required)
                if wrong:
                    raise UserError(
                        f"{path}, line {reader.line_num}: {wrong}",
                        f"{len(header)} cells ({', '.join(header[:6])})",
                        "correct the row or remove it",
                    )
                lines.append(reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}, line {reader.line_num + 1}: {error}",
                "comma-separated text in UTF-8",
                "correct the row or remove it",
            ) from None
    if not lines:
        raise UserError(f"{path} has no rows", "at least one fact", "add rows")
    return header, lines


def _wrong(row: list[str], header: list[str], required: Sequence[str]) -> str:
    if len(row) != len(header):
        return f"{len(row)} cells"
    empty = [c for c in required if not row[header.index(c)].strip()]
    return f"no {empty[0]}" if empty else ""
