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
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mu_jax.devices import crew
from mu_jax.devices.crew import Unreachable
from mu_jax.errors import UserError

_COUNTS = (
    *("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"),
    *("PMI_SIZE", "MEGASCALE_NUM_SLICES"),
)
_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
STARTERS = (*_COUNTS, *_HOSTS)
"""Where what starts several processes says how many: a number, or their names. Of Slurm
the step's tasks: a job may have more, of which none has been started."""

_HEAD = 1024
"""Bytes of the first message, its length included; most things fit into it."""


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
    where = coordinator or "found by itself"
    missing = (
        f"the other processes do not answer within {timeout} s (coordinator {where});"
        " start the same command on every worker, and let them reach that port"
    )
    try:
        with _or_exit(timeout, missing):
            found, several, index, local = _met(
                coordinator, processes, process, timeout
            )
        if index == 0 and several > 1:
            crew.keep_store(found, several)
        with _or_exit(timeout, missing):
            jax.distributed.initialize(
                found,
                several,
                index,
                local,
                cluster_detection_method="deactivate",
                initialization_timeout=timeout + 60,
                # JAX's own store, which nobody asks where there is ours
                coordinator_bind_address="127.0.0.1:0" if several > 1 else None,
            )
    except ValueError as error:
        raise UserError(
            f"--distributed, but {error}".rstrip("."),
            "a worker of a TPU pod, of GKE or of Slurm",
            "or name the processes: --coordinator HOST:PORT --processes N --process I",
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, Unreachable):
            raise
        raise Unreachable(f"the processes cannot meet at {where} ({reason})") from None
    if several > 1:
        crew.muster(index, several)


def _met(
    coordinator: str | None, processes: int | None, process: int | None, timeout: int
) -> tuple[str, int, int, Any]:
    """Where the processes meet, how many they are, which is this, and its devices.

    What is not given is found as JAX finds it.
    """
    from jax._src.clusters import ClusterEnv  # initialize tells nobody what it found

    given = coordinator, processes, process, None
    found: Any = ClusterEnv.auto_detect_unset_distributed_params(*given, None, timeout)
    for value, what in zip(found, ("coordinator", "number", "process"), strict=False):
        if value is None:
            raise ValueError(f"nothing says who the others are (no {what})")
    return found


def alone() -> None:
    """Raises UserError if this process is one of several that have not joined.

    Each would take itself for the one that writes.
    """
    if jax.distributed.is_initialized():
        return
    names = {name: os.environ.get(name, "").split(",") for name in _HOSTS}
    found = {name: _number(name) or 1 for name in _COUNTS}
    found |= {name: len(list(filter(None, hosts))) for name, hosts in names.items()}
    said = next((name for name, n in found.items() if n > 1), "")
    several = found[said] if said else jax.process_count()  # libtpu knows its slice
    if several > 1:
        raise UserError(
            f"one of {several} processes {f'({said})' if said else 'of a TPU slice'},"
            " on its own",
            "all of them as one run, or a single one",
            "add --distributed on every worker; see scripts/tpu_pod.sh",
        )


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
