"""Calls of what a config brings along: whose fault it is when one fails."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mu_jax.devices.crew import Unreachable
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError
from mu_jax.runs import own

_MACHINE = (OSError, MemoryError, jax.errors.JaxRuntimeError)
"""What a machine may be to blame for, even where a method of one's own is called."""

_OURS = str(Path(__file__).parents[1])
_SHOWN = 3
"""Lines of one's own file that are named, the innermost."""


class Failed(UserError):
    """A method of one's own has raised something."""


@contextlib.contextmanager
def called(where: str, value: Any) -> Iterator[None]:
    """Inside, a value of the config is called, which may be one's own.

    Args:
      where: the value stands in the config.

    Raises:
      UserError: something was refused; now it says where.
      Failed: it, or a part of it, is of a class from outside mu_jax, and what was
        raised inside is not the machine's fault.
    """
    try:
        yield
    except (Preempted, Unreachable):
        raise
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:
        kinds = own.classes(value)
        if not kinds or (isinstance(error, _MACHINE) and not _theirs(error)):
            raise
        names = ", ".join(kind.__name__ for kind in kinds)
        said = f"{type(error).__name__}: {error}"[:400]
        raise Failed(
            f"{where}: {names} fails with {said}{_lines(error)}",
            "what its protocol says",
        ) from error


def _theirs(error: Exception) -> bool:
    """Whether one's own file was nearer to the error than any of mu_jax."""
    theirs = {str(file) for file in own.files()}
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    known = [file for file in frames if file in theirs or file.startswith(_OURS)]
    return bool(known) and known[-1] in theirs


def _lines(error: Exception) -> str:
    """Where in one's own files it happened."""
    theirs = {str(file) for file in own.files()}
    steps = [
        f"line {frame.lineno} of {Path(frame.filename).name}, in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in theirs
    ]
    return f" ({'; '.join(steps[-_SHOWN:])})" if steps else ""
