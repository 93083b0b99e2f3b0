"""Several processes as one program: how they start, and what they tell one another.

On a pod every worker runs the same command line, and all of them do the same things in
the same order. Process 0 alone touches the text of a run directory: `first` does
something there and tells all what came of it, be it bytes or an error. So no two
processes ever see different things, whatever a shared disk may have cached. Where there
is one process only, nothing of this costs anything.
"""

import contextlib
import contextvars
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from mu_jax.errors import UserError

_HEAD = 1024
"""Bytes of the first message, its length included; most things fit into it."""


class Unreachable(RuntimeError):
    """The other processes cannot be reached: the machines' fault, not the input's."""


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the other processes; before anything else that uses a device.

    What is not given comes from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, or else from the machine: a TPU pod slice, GKE, Slurm, Open MPI.

    Args:
      coordinator: HOST:PORT of process 0, on which it listens.
      timeout: seconds to wait for the others.

    Raises:
      UserError: nothing says who the others are, or what does makes no sense.
      Unreachable: there is no meeting them. If they do not come, the process ends with
        status 1 and a line that says so.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    processes = _number("JAX_NUM_PROCESSES") if processes is None else processes
    process = _number("JAX_PROCESS_ID") if process is None else process
    if coordinator and not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"the coordinator {coordinator!r}", "HOST:PORT of process 0")
    if processes is not None and process is not None and process >= processes:
        raise UserError(
            f"process {process} of {processes}", f"a number from 0 to {processes - 1}"
        )
    found = coordinator or "found by itself"
    missing = (
        f"the other processes do not answer within {timeout} s (coordinator {found});"
        " start the same command on every worker, and let them reach that port"
    )
    try:
        with _or_exit(timeout, missing):
            jax.distributed.initialize(
                coordinator, processes, process, initialization_timeout=timeout + 60
            )
    except ValueError as error:
        raise UserError(
            f"--distributed, but {error}".rstrip("."),
            "a worker of a TPU pod, of GKE or of Slurm",
            "or name the processes: --coordinator HOST:PORT --processes N --process I",
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise Unreachable(f"the processes cannot meet at {found} ({reason})") from None


def is_writer() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return not _several() or jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Whether any of the processes says so; all have to ask together."""
    if not _several():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def first(act: Callable[[], bytes | None]) -> bytes:
    """What `act` returns where process 0 does it; its error, too, is everybody's.

    While it acts, process 0 is on its own: what it calls asks no other process.
    """
    if not _several():
        return act() or b""
    if jax.process_index():
        return _unpacked(_broadcast(b""))
    try:
        with _alone():
            found = act() or b""
    except Exception as error:
        _broadcast(_packed(error))
        raise
    _broadcast(b" " + found)
    return found


def same(value: str, what: str) -> None:
    """Raises UserError on all processes unless `value` is the same on all of them."""
    if not _several():
        return
    mine = hashlib.sha256(value.encode()).digest()
    if agree(first(lambda: mine) != mine):
        raise UserError(
            f"{what} that differ between the processes",
            "the same on every worker",
            "run the same command on all, with the same files and packages",
        )


@contextlib.contextmanager
def _or_exit(seconds: float, why: str) -> Iterator[None]:
    """Ends the process unless what is inside has ended in time.

    JAX would abort it, with a stack trace of C++ and nothing that could be caught.
    """

    def give_up():
        print(f"mu: {why}", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_ACTING = contextvars.ContextVar("acting", default=False)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    token = _ACTING.set(True)
    try:
        yield
    finally:
        _ACTING.reset(token)


def _several() -> bool:
    joined = jax.distributed.is_initialized() and not _ACTING.get()
    return joined and jax.process_count() > 1


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise UserError(f"{variable}={text}", "a number")
    return int(text) if text else None


def _broadcast(data: bytes) -> bytes:
    """Process 0's bytes: their number and as many as fit, then the others.

    Sizes are powers of two, so that few programs are compiled.
    """
    head = len(data).to_bytes(8, "little") + data[: _HEAD - 8]
    got = _sent(head, _HEAD)
    size = int.from_bytes(got[:8], "little")
    if size <= _HEAD - 8:
        return got[8 : 8 + size]
    return _sent(data, 1 << (size - 1).bit_length())[:size]


def _sent(data: bytes, size: int) -> bytes:
    padded = np.frombuffer(data.ljust(size, b"\0"), np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes()


def _packed(error: Exception) -> bytes:
    if isinstance(error, OSError):
        parts = [error.errno, error.strerror or str(error), str(error.filename or "")]
        return b"o" + json.dumps(parts).encode()
    kind = b"u" if isinstance(error, UserError) else b"x"
    return kind + str(error).encode()


def _unpacked(message: bytes) -> bytes:
    kind, rest = message[:1], message[1:]
    if kind == b" ":
        return rest
    if kind == b"o":
        number, reason, name = json.loads(rest)
        raise OSError(number, reason, name or None)
    if kind == b"u":
        raise UserError(rest.decode())
    raise RuntimeError(f"process 0 failed: {rest.decode()}")
