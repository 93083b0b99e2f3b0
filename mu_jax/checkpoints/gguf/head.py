"""The head of a GGUF file, held against the file's length before anything believes it.

    "GGUF", version         2 or 3, lowest byte first
    tensors, fields         their numbers
    fields                  key, type, value; of an array type, number, items
    tensors                 name, number of axes, axes, type, offset

The package gguf takes every number as it stands: an array that says it has 2^40 items
keeps it busy for ever. So the head is walked through here first, in one pass.
"""

import mmap
import struct
from pathlib import Path

from mu_jax.errors import UserError

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_FIELDS = 1 << 16
_TENSORS = 1 << 16
_AXES = 4
_LETTERS = 1 << 24
"""Bytes of one string; the longest are chat templates."""
_ITEMS = 1 << 21
"""Of all arrays together, each of which becomes an object: Gemma 3 has 786 thousand."""


def check(path: Path) -> None:
    """Raises UserError unless the head is whole and no number in it is absurd."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            _Head(path, data).walk()
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(path, "it is empty") from None  # which no map can be of


class _Head:
    """Where we are in the head of a file."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at, self.items = path, data, 0, 0

    def walk(self) -> None:
        if self.data[:4] != b"GGUF":
            raise _damaged(self.path, "it does not begin with GGUF")
        self.at = 4
        version = self.number(4)
        if version not in _VERSIONS:
            raise _damaged(self.path, f"its version is {version}")
        tensors = self.number(8, _TENSORS, "tensors")
        fields = self.number(8, _FIELDS, "fields")
        for _ in range(fields):
            self.string()
            self.value(self.number(4))
        for _ in range(tensors):
            self.string()
            axes = self.number(4, _AXES, "axes of a tensor")
            self.skip(8 * axes + 4 + 8)

    def number(self, width: int, most: int | None = None, what: str = "") -> int:
        """An unsigned number, `what` it counts being at most `most`."""
        start = self.at
        self.skip(width)
        (found,) = struct.unpack_from("<I" if width == 4 else "<Q", self.data, start)
        if most is not None and found > most:
            raise _damaged(self.path, f"it says it has {found} {what}, over {most}")
        return found

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise _damaged(self.path, f"it ends inside its head, at {len(self.data)}")

    def string(self) -> None:
        self.skip(self.number(8, _LETTERS, "bytes of text in one place"))

    def value(self, kind: int) -> None:
        if kind == _STRING:
            self.string()
        elif kind in _WIDTHS:
            self.skip(_WIDTHS[kind])
        elif kind == _ARRAY:
            self.array()
        else:
            raise _damaged(self.path, f"it has a value of the unknown type {kind}")

    def array(self) -> None:
        kind, n = self.number(4), self.number(8, _ITEMS, "items of an array")
        self.items += n
        if self.items > _ITEMS:
            raise _damaged(self.path, f"its arrays have more than {_ITEMS} items")
        if kind == _STRING:
            for _ in range(n):
                self.string()
        elif kind in _WIDTHS:
            self.skip(n * _WIDTHS[kind])
        else:
            raise _damaged(self.path, f"it has an array of the type {kind}")


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} cannot be read as GGUF ({why})",
        "a whole GGUF file",
        "it may be truncated: fetch it again",
    )
