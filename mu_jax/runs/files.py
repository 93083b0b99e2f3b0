"""The files of a run directory: written whole, read with care, never through a link.

Text is written beside its place and renamed when whole. Where several processes share a
run, process 0 reads and writes text, and tells the others what it read. Nothing here is
trusted when read: sizes are checked, and a symbolic link below the directory is refused
before anything is read, written or removed, since it may lead anywhere.
"""

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mu_jax import inputs
from mu_jax.devices import distributed
from mu_jax.errors import UserError

_PATIENCE = 10.0
"""Seconds until a file that another worker wrote has to be visible."""
_ABANDONED = 3600.0
"""Seconds after which a half-written file is nobody's any more."""


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The directory at `path`, created when something is first written."""

    path: Path

    def exists(self, name: str) -> bool:
        there = lambda: b"yes" if self._at(name).exists() else b""
        return bool(distributed.first(there))

    def listed(self, folder: str, pattern: str) -> list[str]:
        """The files below a folder of this run that match a pattern, by name, sorted.

        Names that mu would not have given are left out.
        """

        def found() -> bytes:
            top = self._at(folder)
            names = (f.relative_to(self.path).parts for f in top.glob(pattern))
            known = ("/".join(n) for n in names if all(map(inputs.is_name, n)))
            return json.dumps(sorted(known)).encode()

        return json.loads(distributed.first(found))

    def folder(self, name: str) -> Path:
        """The place of a folder whose files others read and write: orbax.

        Raises:
          UserError: there is a link in it, or on the way to it.
        """

        def check() -> None:
            place = self._at(name)
            for top, folders, files in os.walk(place):
                for entry in (*folders, *files):
                    _no_link(Path(top) / entry)

        distributed.first(check)
        return self.path / name

    def remove(self, name: str, keep: tuple[str, ...] = ()) -> None:
        """Deletes a file or folder of this run, if it is there.

        Of a folder, what is called as one of `keep` stays.
        """
        distributed.first(lambda: _remove(self._at(name), keep))

    def write_text(self, name: str, text: str) -> None:
        """Puts a file in its place, whole or not at all."""
        distributed.first(lambda: _write(self._at(name), text))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def write_lines(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(r) + "\n" for r in records))

    def read_text(self, name: str) -> str:
        """The text of a file of this run."""
        with self._readable(name):
            return self._read(name, "run").decode("utf-8")

    def read_json(self, name: str, made_by: str) -> Any:
        with self._readable(name):
            return inputs.parsed(self._read(name, made_by))

    def read_lines(
        self, name: str, made_by: str, build: Callable[[Any], Any] = dict
    ) -> Iterator[Any]:
        """What `build` makes of each line's record."""
        lines = self._read(name, made_by).splitlines()
        for number, line in enumerate(lines, 1):
            with self._readable(f"{name}, line {number}"):
                made = build(inputs.parsed(line))
            yield made

    @contextlib.contextmanager
    def held(
        self, name: str, waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Inside, no other command of this machine makes what is called `name`.

        Where one is at it already, `waiting` is called until it has ended.

        Raises:
          UserError: one is, and nobody wants to wait.
        """
        if not distributed.is_writer():
            distributed.first(bytes)
            yield
            return
        folder, _, last = f"stamps/{name}".rpartition("/")
        lock = FileLock(self._at(f"{folder}/.{last}.lock"), is_singleton=True)

        def acquire() -> None:
            lock_file = Path(lock.lock_file)
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            while not lock.is_locked:
                try:
                    lock.acquire(timeout=1 if waiting else 0)
                except Timeout:
                    if not waiting:
                        raise UserError(
                            f"another command is making {name} in {self.path}",
                            "one at a time",
                            "wait until it has ended, or give this one another --runs",
                        ) from None
                    waiting()

        distributed.first(acquire)
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def busy(self, name: str) -> bool:
        """Whether another command of this machine is making what is called `name`."""
        folder, _, last = f"stamps/{name}".rpartition("/")
        if not self.exists(f"{folder}/.{last}.lock"):
            return False
        try:
            with self.held(name):
                return False
        except UserError:
            return True

    def check_shared(self) -> None:
        """Raises UserError unless all processes see this directory."""
        nonce = distributed.first(lambda: os.urandom(8).hex().encode()).decode()
        name = f".shared-{nonce}"
        self.write_text(name, nonce)
        until = time.monotonic() + _PATIENCE
        seen = lambda: (self.path / name).is_file()
        while not seen() and time.monotonic() < until:
            time.sleep(0.1)  # a network disk may be late
        missing = distributed.agree(not seen())
        self.remove(name)
        if missing:
            raise UserError(
                f"the run directory {self.path.absolute()} is not the same folder on"
                " every worker",
                "one on a disk that all of them share",
                "give --runs a folder on such a disk",
            )

    def _at(self, name: str) -> Path:
        """The place of a file; raises UserError if a link leads there."""
        place = self.path
        for part in Path(name).parts:
            place = place / part
            _no_link(place)
        return place

    def _read(self, name: str, made_by: str) -> bytes:
        try:
            return distributed.first(lambda: inputs.read(self._at(name)))
        except FileNotFoundError:
            raise UserError(
                f"no {name} in {self.path}",
                f"what `mu {made_by}` makes",
                f"run: mu {made_by} {self.path}" if self.exists("config.json") else "",
            ) from None

    def _readable(self, name: str) -> "_Readable":
        return _Readable(self.path / name)


class _Readable:
    """Turns whatever a damaged file raises into one line that names it."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        damaged = (ValueError, TypeError, LookupError, ArithmeticError)
        if isinstance(error, damaged) and not isinstance(error, UserError):
            raise UserError(
                f"{self.path} is damaged ({type(error).__name__}: {error})",
                "the file as mu wrote it",
                "delete it and run its stage again",
            ) from None


def _no_link(place: Path) -> None:
    inputs.no_link(place, "a run directory")


def _remove(target: Path, keep: tuple[str, ...]) -> None:
    if not target.exists():
        return  # nothing to do, which a disk that can only be read allows
    if target.is_dir() and keep:
        for entry in target.iterdir():
            _no_link(entry)
            if entry.name not in keep:
                _remove(entry, ())
    elif target.is_dir():
        shutil.rmtree(target)  # of links in it, the links alone
    else:
        target.unlink(missing_ok=True)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)
    for left in target.parent.glob(f".{glob.escape(target.name)}.????????"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()  # of a writer that was killed
