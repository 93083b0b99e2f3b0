"""Tables of records from files: CSV, JSON, JSON Lines and Parquet.

Nothing here is trusted: whatever cannot be read is one line that names the file and the
place in it. No format that can hold code (pickle, loading scripts) is ever opened.
Files are opened here, and not by `datasets`, which takes a name as a pattern.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mu_jax import inputs
from mu_jax.errors import UserError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


class Record(dict[str, Any]):
    """One row of a table, and its place: the file, and a line or a number in it.

    A CSV row is at the line on which it ends; all its values are stripped strings.
    """

    def __init__(self, values: dict[str, Any], place: str):
        super().__init__(values)
        self.place = place


def read(path: str) -> list[Record]:
    """The records of a CSV, JSON, JSON Lines or Parquet file, by its suffix.

    Raises:
      UserError: no such file, another suffix, no records, or a malformed one.
    """
    _present(path, "CSV, JSON or Parquet")
    match Path(path).suffix.lower():
        case ".csv":
            return read_csv(path, ())
        case ".json" | ".jsonl":
            return read_json(path)
        case ".parquet":
            return read_parquet(path)
        case suffix:
            raise UserError(
                f"{path} ends in {suffix or 'no suffix'!r}",
                f"one of {', '.join(SUFFIXES)}",
                "convert the file, or name it by what it holds",
            )


def read_csv(path: str, required: Sequence[str]) -> list[Record]:
    """The rows of a CSV file, all values stripped strings.

    Raises:
      UserError: no such file, no rows, a missing column, or a row that is malformed or
        has an empty required cell (naming the file, the line and the reason).
    """
    reader = csv.reader(io.StringIO(_text(path, "CSV"), newline=""), strict=True)
    rows: list[Record] = []
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
            if row:
                rows.append(_row(row, header, required, f"{path}, line {end}"))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {end + 1}: {error}",
            "comma-separated text, with quotes in pairs",
            "correct the row or remove it",
        ) from None
    if not rows:
        raise UserError(f"{path} has no rows", "at least one fact", "add rows")
    return rows


def read_json(path: str) -> list[Record]:
    """The objects of a JSON array, or of a file with one object a line (JSON Lines).

    Parsed by the standard library: `datasets` turns text that looks like a date into
    one, and refuses blank lines and a byte order mark.

    Raises:
      UserError: no such file, not UTF-8, invalid JSON, no records, or one that is not
        an object (naming the file, and the line or the number).
    """
    text = _text(path, "JSON")
    if text.lstrip().startswith("["):
        values = [
            (f"{path}, record {i}", value)
            for i, value in enumerate(_parse(text, path, 1), 1)
        ]
    else:
        values = [  # only line feeds end lines: a string may hold other separators
            (f"{path}, line {i}", _parse(line, path, i))
            for i, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    for place, value in values:
        if not isinstance(value, dict):
            raise UserError(
                f"{place}: {json.dumps(value)[:40]}",
                "an object with named fields",
                "correct the record or remove it",
            )
    if not values:
        raise UserError(f"{path} has no records", "at least one fact", "add records")
    return [Record(value, place) for place, value in values]


def read_parquet(path: str) -> list[Record]:
    """The rows of a Parquet file.

    Raises:
      UserError: no such file, one that is not Parquet, no rows, or two columns of one
        name.
    """
    _present(path, "Parquet")
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with Path(path).open("rb") as file:  # by its name it might be a pattern
            table = ParquetFile(file).read()
            names, rows = table.column_names, table.to_pylist()
    except (pa.ArrowException, ArithmeticError, OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({reason(error)})",
            "a Parquet file with rows",
            "write the file anew",
        ) from None
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(
            f"{path} has the column {twice[0]!r} more than once",
            "columns with names of their own",
            "name them apart",
        )
    if not rows:
        raise UserError(f"{path} has no rows", "at least one fact", "add rows")
    return [Record(row, f"{path}, record {i}") for i, row in enumerate(rows, 1)]


def reason(error: BaseException) -> str:
    """The first line of what an error, or the one that caused it, says."""
    error = error.__cause__ or error
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def _parse(text: str, path: str, line: int) -> Any:
    """What JSON text says that begins on `line` of its file."""
    try:
        return inputs.parsed(text)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            line += error.lineno - 1
        raise UserError(
            f"{path}, line {line}: {error}",
            "a JSON array of objects, or one JSON object a line",
            "correct the line or remove it",
        ) from None


def _present(path: str, kind: str) -> None:
    """Raises UserError unless there is a plain file of a size that can be read."""
    source = Path(path)
    if not source.exists():
        raise UserError(
            f"no file {path}", f"the path of a {kind} file", "check the path's spelling"
        )
    inputs.regular(source)


def _text(path: str, kind: str) -> str:
    """The whole file, decoded."""
    _present(path, kind)
    data = inputs.read(Path(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: {error}",
            f"{kind} text in UTF-8",
            "save the file as UTF-8",
        ) from None


def _row(
    cells: list[str], header: list[str], required: Sequence[str], place: str
) -> Record:
    """The row at that place; raises UserError if it is malformed."""
    values = dict(zip(header, map(str.strip, cells), strict=False))
    wrong = [f"{len(cells)} cells"] if len(cells) != len(header) else []
    wrong += [f"no {column}" for column in required if not values.get(column)]
    if wrong:
        raise UserError(
            f"{place}: {wrong[0]}",
            f"{len(header)} cells ({', '.join(header[:6])})",
            "correct the row or remove it",
        )
    return Record(values, place)
