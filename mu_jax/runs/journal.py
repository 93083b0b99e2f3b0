"""A mapping kept on disk as it grows, so that a sweep cut short goes on where it was.

One JSON record a line: first the fingerprint of the settings, then [key, value]; a
value is a list of numbers unless a `Form` says otherwise. What was made with other
settings, or is damaged, counts as nothing; a last line cut off by a crash is dropped.
Of several processes process 0 reads and writes, and all have it.
"""

import json
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

from mu_jax import inputs
from mu_jax.devices import distributed


class Form(NamedTuple):
    """How a value is written as JSON, and built from it again.

    `read` raises ValueError, TypeError or LookupError for what `write` never wrote.
    """

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _numbers(row: Any) -> list[float]:
    if not isinstance(row, list) or not all(isinstance(x, int | float) for x in row):
        raise ValueError(f"{row!r} is no list of numbers")
    return [float(number) for number in row]


def _scalars(row: Any) -> list[float | str]:
    of = (int, float, str)
    if not isinstance(row, list) or not all(isinstance(x, of) for x in row):
        raise ValueError(f"{row!r} is no list of numbers and texts")
    return row


NUMBERS, SCALARS = Form(list, _numbers), Form(list, _scalars)


class Journal(MutableMapping[str, Any]):
    """The records at `path` that were made under `fingerprint`.

        with Journal(path, fingerprint) as journal:
            ...  # measure, and write elsewhere what was found

    It is finished where all of that went well, else closed, for a later call to go on.
    """

    def __init__(self, path: Path, fingerprint: str, form: Form = NUMBERS):
        self.path, self.fingerprint, self.form = path, fingerprint, form
        self._records = self._read()
        self._file = None

    def __getitem__(self, key: str) -> Any:
        return self._records[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if distributed.is_writer():
            if self._file is None:
                self._file = self._begin()
            self._file.write(self._line(key, value))
            self._file.flush()
        self._records[key] = value

    def __delitem__(self, key: str) -> None:
        raise TypeError("a journal only grows")

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.finish()
        else:
            self.close()

    def clear(self) -> None:
        """Forgets everything, on disk too."""
        self.finish()
        self._records = {}

    def close(self) -> None:
        """Lets go of the file, which stays; what is set later is added to it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """Removes the file: what was measured has been written elsewhere."""
        self.close()
        if distributed.is_writer():
            for file in (self.path, self._fresh):
                file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            data = distributed.first(lambda: inputs.read(self.path))
            text = data.decode("utf-8")
            lines = text.splitlines(keepends=True)
            if inputs.parsed(lines[0]) != {"fingerprint": self.fingerprint}:
                return {}
            whole = [line for line in lines[1:] if line.endswith("\n")]
            records = map(inputs.parsed, whole)
            return {str(key): self.form.read(value) for key, value in records}
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError):
            return {}

    def _begin(self):
        """The file open for appending, rewritten with what it holds that is whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fresh.unlink(missing_ok=True)  # a link, too, is not followed
        file = self._fresh.open("x", encoding="utf-8")
        file.write(json.dumps({"fingerprint": self.fingerprint}) + "\n")
        for key, value in self._records.items():
            file.write(self._line(key, value))
        file.flush()
        self._fresh.replace(self.path)
        return file

    @property
    def _fresh(self) -> Path:
        return self.path.with_name(f".{self.path.name}.new")

    def _line(self, key: str, value: Any) -> str:
        return json.dumps([key, self.form.write(value)]) + "\n"
