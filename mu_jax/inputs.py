"""What comes from outside: a path of this machine, a file that ends, JSON, a name.

Whoever names a file, be it on the command line or in a run's own config.json, may name
anything: a URL, a device that never ends, a pipe that nobody writes to, a folder of a
million files. Each is refused before it is opened.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu_jax.errors import UserError

LARGEST = 1 << 30
"""Bytes of a text file: far more than facts, general text or a run's records have."""

DEEPEST = 64
"""Levels of JSON inside one another: far more than any file of ours has."""

MOST = 10_000
"""Files in a folder: far more than a checkpoint or a data set has."""

_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+:/|(gs|s3|file|https?|hf|memory):)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def local(path: str | Path, what: str) -> Path:
    """The path, if it is one of this machine's own.

    Args:
      what: it is for, as a person would call it.

    Raises:
      UserError: a URL such as `gs://bucket/run`, or text that is no path at all.
    """
    text = str(path)
    if _URL.match(text):
        raise UserError(
            f"{what} {text[:200]!r} is a URL",
            "a path of this machine",
            "object storage is not read or written: copy it here, and give that path",
        )
    if "\0" in text or "\\" in text or not _unicode(text):
        raise UserError(f"{what} {text[:200]!r}", "a path in Unicode, with no '\\\\'")
    return Path(text)


def no_link(path: Path, of: str) -> None:
    """Raises UserError if `path`, in a folder that is `of` something, is a link."""
    if path.is_symlink():
        raise UserError(
            f"{path} is a symbolic link",
            f"none below {of}: nothing elsewhere is read, written or removed",
            "put what it points to in its place, or delete it",
        )


def is_name(text: Any) -> bool:
    """Whether this can name a file or folder of a run, and leads nowhere else."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text))


def name(text: Any) -> str:
    """The text; raises UserError unless `is_name`."""
    if not is_name(text):
        raise UserError(
            f"the name {_brief(text)}",
            "at most 128 letters, digits, '.', '_' and '-', the first no sign",
            "it becomes the name of a folder",
        )
    return text


def regular(path: Path, most: int | None = None) -> int:
    """How many bytes the file at `path` has, once it is known to be a plain one.

    Raises:
      UserError: a folder, a device, a pipe, a socket, or more than `most` bytes.
      OSError: there is nothing, or nothing that may be seen.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise UserError(
            f"{path} is {kind}", "a plain file", "copy what it holds to one"
        )
    if most is not None and found.st_size > most:
        raise UserError(f"{path} has {found.st_size} bytes", f"at most {most}")
    return found.st_size


def read(path: Path, most: int = LARGEST) -> bytes:
    """A plain file, as long as it is when it is opened.

    Raises:
      UserError: it is none (see `regular`), or has more than `most` bytes.
      OSError: it cannot be read.
    """
    size = regular(path, most)
    with path.open("rb") as file:
        return file.read(size)


def tree(folder: Path, most: int | None = None) -> list[Path]:
    """The files of a folder and of those in it, sorted; hidden ones are left out.

    Raises:
      UserError: one of them is no plain file or too large (see `regular`), or they are
        too many.
    """
    files = []
    for path in _walk(folder):
        regular(path, most)
        files.append(path)
        if len(files) > MOST:
            raise UserError(
                f"{folder} has more than {MOST} files",
                "the folder of one data set or checkpoint",
                "give the path of that alone",
            )
    return sorted(files)


def ends(path: str | Path | None) -> None:
    """Raises UserError if something is at `path` that cannot be read to its end."""
    if not path:
        return
    found = Path(path)
    if found.is_dir():
        tree(found, LARGEST)
    elif found.exists():
        regular(found, LARGEST)


def parsed(data: str | bytes) -> Any:
    """What JSON text says.

    Raises:
      ValueError: no JSON, none in Unicode, or one nested more than `DEEPEST` deep.
    """
    text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and _deep(found):
        raise ValueError("JSON nested too deep")
    return found


def _unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [n for n in folders if not n.startswith(".")]
        paths = (Path(parent, n) for n in files if not n.startswith("."))
        yield from filter(os.path.exists, paths)  # not what may not be seen


def _deep(value: Any) -> bool:
    """Whether there is anything below `DEEPEST` levels, which recursion would reach."""
    level = [value]
    for _ in range(DEEPEST):
        nested = [v for v in level if isinstance(v, dict | list)]
        level = [m for v in nested for m in (v.values() if isinstance(v, dict) else v)]
    return bool(level)


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:50]}... of {len(shown)} characters"
