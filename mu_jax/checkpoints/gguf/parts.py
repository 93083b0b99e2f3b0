"""GGUF files that are split: `NAME-00001-of-00003.gguf` and so on.

Each part is a GGUF of its own, with `split.no` from 0, `split.count` and
`split.tensors.count`, that of all parts together. What the model is stands in the
first.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mu_jax.errors import UserError

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_NO, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_OWN = ("split.", "GGUF.")
"""Begins the keys that differ from part to part."""

Contents = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The fields and the tensors of one part, by name."""


def parts(path: Path) -> list[Path]:
    """All parts of the file that `path` is or is one of, in order, by its name.

    Raises:
      UserError: there is no such file, or a part is missing; it is named.
    """
    match = _PART.fullmatch(path.name)
    stem, number, count = match.groups() if match else ("", "1", "1")
    if not 1 <= int(number) <= int(count):
        raise UserError(f"the part {path.name}", f"a number from 1 to {int(count)}")
    if not path.is_file():
        raise UserError(
            f"no file {path}", "the path of a GGUF file", "check the path's spelling"
        )
    if not match:
        return [path]
    found = []
    for n in range(1, int(count) + 1):
        part = path.with_name(f"{stem}-{n:05}-of-{count}.gguf")
        if not part.is_file():
            raise UserError(
                f"no file {part}",
                f"all {int(count)} parts of the model in one folder",
                "fetch it too",
            )
        found.append(part)
    return found


def joined(files: Sequence[Path], read: Sequence[Contents]) -> Contents:
    """The fields and tensors of the whole.

    Raises:
      UserError: the parts are not those of one model; the one that differs is named.
    """
    fields = dict(read[0][0])
    tensors: dict[str, Any] = {}
    for i, (file, (said, inside)) in enumerate(zip(files, read, strict=True)):
        _expect(file, said, _COUNT, len(files), 1)
        _expect(file, said, _NO, i, 0)
        for key, value in said.items():
            if not key.startswith(_OWN) and fields.get(key, value) != value:
                raise _apart(file, f"{key[:80]} is not what {files[0].name} says")
        for name in inside.keys() & tensors.keys():
            raise _apart(file, f"the tensor {name[:80]!r} is in another part too")
        tensors |= inside
    for file, (said, _) in zip(files, read, strict=True):
        _expect(file, said, _TENSORS, len(tensors), len(tensors))
    return {k: v for k, v in fields.items() if not k.startswith(_OWN)}, tensors


def _expect(
    file: Path, said: Mapping[str, Any], key: str, value: int, absent: int
) -> None:
    """Raises UserError unless a part says so; `absent` is what no key means."""
    found = said.get(key, absent)
    if found != value:
        raise _apart(file, f"{key} is {str(found)[:60]}, not {value}")


def _apart(file: Path, why: str) -> UserError:
    return UserError(
        f"{file}: {why}",
        "the parts of one model, under the names they were split into",
        "fetch all of them again, into one folder",
    )
