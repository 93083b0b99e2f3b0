"""The directory of an export: whole or absent, and known as ours by a note in it."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mu_jax.errors import UserError

NOTE = "mu_export.json"
"""What was exported, from where; its presence lets the next export replace it."""


@contextlib.contextmanager
def written(
    directory: Path,
    note: Mapping[str, Any],
    *,
    force: bool = False,
    sources: Iterable[Path] = (),
) -> Iterator[Path]:
    """An empty folder beside `directory` that takes its place when all went well.

    Args:
      force: replace a folder that is not an export too.
      sources: what the export is made of: the directory may not be any of these, nor
        hold one, nor lie in one.

    Raises:
      UserError: something else is there, or it is, holds or lies in what is to stay as
        it is.
    """
    directory = directory.resolve()
    _check(directory, force, [path.resolve() for path in sources])
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = {"dir": directory.parent, "prefix": f".{directory.name}."}
    partial = Path(tempfile.mkdtemp(**beside))
    try:
        yield partial
        (partial / NOTE).write_text(json.dumps(note, indent=1) + "\n")
        partial.chmod(0o755)
        with contextlib.ExitStack() as after:
            if directory.exists():
                old = Path(tempfile.mkdtemp(**beside))
                after.callback(shutil.rmtree, old)
                directory.replace(old)
            partial.replace(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(directory: Path, force: bool, sources: list[Path]) -> None:
    for path in (Path.cwd().resolve(), *sources):
        if path.is_relative_to(directory):
            raise _misplaced(directory, "is or holds", path)
    for path in sources:
        if directory.is_relative_to(path):
            raise _misplaced(directory, "lies in", path)
    if directory.exists() and not directory.is_dir():
        raise UserError(
            f"{directory} is a file", "a directory to export to", "give another one"
        )
    if directory.exists() and any(directory.iterdir()):
        ours = (directory / NOTE).is_file()
        if not (ours or force):
            raise UserError(
                f"{directory} holds other things",
                "a new or empty directory, or an earlier export",
                "give another one, or --force to delete what is there",
            )


def _misplaced(directory: Path, how: str, path: Path) -> UserError:
    return UserError(
        f"an export to {directory}, which {how} {path}",
        "a directory of its own",
        "give another one",
    )
