"""How a command ends that did not go well: with one line and a status, never a trace.

    1     the machine: a full disk, no memory, other processes that do not answer
    2     the input, which a person can mend
    130   interrupted
    141   whoever read what it said has gone, as in `mu ... | head`
    143   SIGTERM

141 is what a shell reports of a tool that a closed pipe ended. A run that is piped
saves and stops as on SIGTERM, but does not say 143: on that a scheduler starts it anew,
and it would stop again at its first word.
"""

import errno
import os
import signal

import jax

from mu_jax.devices.crew import Unreachable
from mu_jax.devices.preemption import STATUS, Preempted
from mu_jax.errors import UserError

GONE = 128 + signal.SIGPIPE
"""The exit status where nobody reads what is said any more."""

_ROOM = "free space or choose another --runs"
_MAY = "give yourself the right to it, or choose another path"
_AGAIN = "run the same command again"
_ON = "run the same command to go on"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "choose a disk that holds files as large, or raise `ulimit -f`",
    errno.EACCES: _MAY,
    errno.EPERM: _MAY,
    errno.EROFS: "that disk can only be read: choose another --runs",
    errno.ENOTDIR: "a file is where a folder should be: choose another path",
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ELOOP: "links lead in a circle: remove them",
    errno.ENAMETOOLONG: "choose a shorter name or path",
    errno.EMFILE: "raise `ulimit -n`",
}


def told(error: BaseException) -> tuple[str, int]:
    """What to tell a person of an error, and the exit status.

    Raises `error` itself if it is nobody's fault but ours.
    """
    match error:
        case UserError():
            return str(error), 2
        case Unreachable():
            return str(error), 1
        case Preempted():
            return f"stopped by SIGTERM; {_ON}", STATUS
        case KeyboardInterrupt():
            return f"interrupted; {_ON}", 130
        case BrokenPipeError():
            return "", GONE
        case OSError():
            return _machine(error.errno, error), 1
        case MemoryError():
            return _memory(), 1
        case jax.errors.JaxRuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
            return _memory(), 1
    for number in _REMEDIES:  # of libraries that tell it in words of their own
        if os.strerror(number) in str(error):
            return _machine(number, OSError(number, os.strerror(number))), 1
    raise error


def _machine(number: int | None, error: OSError) -> str:
    """An error of the operating system, and what helps against that one."""
    where = f" ({str(error.filename)[:200]})" if error.filename else ""
    remedy = f"{_REMEDIES[number]}, and {_AGAIN}" if number in _REMEDIES else _AGAIN
    reason = error.strerror or str(error)
    return f"{reason}{where}; what was whole before still is; {remedy}"


def _memory() -> str:
    return (
        "there is not enough memory; take smaller batches, bfloat16 or more devices"
        f" (`mu plan` counts what they hold), and {_AGAIN}"
    )
