"""Tables of records from files: CSV, JSON, JSON Lines and Parquet.

Nothing here is trusted: whatever cannot be read is one line that names the file and the
place in it. No format that can hold code (pickle, loading scripts) is ever opened.
"""

import csv
import io
import json
import tempfile
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
    return [
        Record(row, f"{path}, line {line}")
        for row, line in zip(rows, lines, strict=True)
    ]


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
      UserError: no such file, one that is not Parquet, or no rows.
    """
    _present(path, "Parquet")
    import datasets
    from datasets.utils import disable_progress_bars

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as cache:
        try:
            table = datasets.Dataset.from_parquet(
                path, cache_dir=cache, keep_in_memory=True
            )
            rows = table.to_list()
        except (datasets.exceptions.DatasetsError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({reason(error)})",
                "a Parquet file with rows",
                "write the file anew",
            ) from None
    return [Record(row, f"{path}, record {i}") for i, row in enumerate(rows, 1)]


def reason(error: BaseException) -> str:
    """The first line of what an error, or the one that caused it, says."""
    error = error.__cause__ or error
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def _check(path: str, required: Sequence[str]) -> tuple[list[str], list[int]]:
    """The header, and the last line of every row.

    Raises:
      UserError: what `read_csv` refuses; of several wrong rows the first.
    """
    reader = csv.reader(io.StringIO(_text(path, "CSV"), newline=""), strict=True)
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


def _wrong(row: list[str], header: list[str], required: Sequence[str]) -> str:
    if len(row) != len(header):
        return f"{len(row)} cells"
    empty = [c for c in required if not row[header.index(c)].strip()]
    return f"no {empty[0]}" if empty else ""
