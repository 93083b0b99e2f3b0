"""What orbax makes of damaged files, as one line.

Where a file is cut, its reader raises any kind of error, logs it in many lines, and
leaves coroutines behind whose errors Python would print when it collects them, and
callbacks that find their event loop closed. None of that says more than the path does.
"""

import contextlib
import gc
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from mu_jax.checkpoints import pointer
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError

_LATE = 0.1
"""Seconds in which the callbacks of reads under way come back."""


@contextlib.contextmanager
def readable(path: Path, expected: str, remedy: str) -> Iterator[None]:
    """Inside, whatever orbax raises becomes a UserError that names `path`.

    Args:
      expected, remedy: for that error.
    """
    with quiet():
        try:
            yield
        except (UserError, Preempted):
            raise
        except Exception as error:  # of orbax, tensorstore, json: any kind
            kind = type(error).__name__
            traceback.clear_frames(error.__traceback__)
            del error
            gc.collect()
            time.sleep(_LATE)
            _refuse_pointers(path)
            raise UserError(
                f"{path} cannot be read ({kind})", expected, remedy
            ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, nothing is logged by orbax, nor printed of errors that nobody awaits."""
    logs = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, hook = [log.disabled for log in logs], sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        for log in logs:
            log.disabled = True
        yield
    finally:
        sys.unraisablehook = hook
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled


def _refuse_pointers(path: Path) -> None:
    """Raises UserError if a file of the folder is a pointer of git-lfs."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        pointer.check(file)
