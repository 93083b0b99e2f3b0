"""The processes of one run stand and fall together.

What fails in one of them alone (a checkpoint that is not there, a full disk, a kill)
would leave the others waiting for it for ever, inside a collective that nothing
interrupts. So each of them tells a common store every second that it lives, and why it
ends if it does; a thread of each reads what the others tell, and ends its process with
one line that names the host, by force.
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax

from mu_jax.devices import coordinator
from mu_jax.errors import UserError

PERIOD = 1.0
"""Seconds between two signs of life."""
SILENCE = 20.0
"""Seconds without one, after which a process counts as dead."""
GRACE = 3.0
"""Seconds in which an error that all have alike comes to each of them by itself."""

_TOLD = "mu/failed/"
_ALIVE = "mu/alive/"


class Unreachable(RuntimeError):
    """The other processes cannot be reached: the machines' fault, not the input's."""


class End(NamedTuple):
    """Why a process ends, and its exit status."""

    status: int
    why: str


class Crew:
    """What this process tells the others, and what they tell it."""

    def __init__(self, store: Any, index: int, count: int):
        self._store, self._index, self._count = store, index, count
        self._heard = {index: ("", time.monotonic()) for index in range(count)}
        self._ending, self._other = threading.Event(), threading.Event()
        self._end = End(1, "")
        self._live(0)
        threading.Thread(target=self._watch, daemon=True).start()

    def failed(self, error: BaseException) -> None:
        """Tells the others that this process ends.

        Where another has failed first and the error only follows from that, waits until
        it is known which.

        Raises:
          Unreachable: that other one, and why.
        """
        if isinstance(error, jax.errors.JaxRuntimeError):  # a collective broke
            self._other.wait(SILENCE + 2 * PERIOD)
        self._ending.set()
        if self._other.is_set() and not isinstance(error, UserError):
            raise Unreachable(self._end.why) from None
        status = 2 if isinstance(error, UserError) else 1
        why = str(error).strip() or type(error).__name__
        told = json.dumps([status, socket.gethostname(), why.splitlines()[0]])
        with contextlib.suppress(Exception):  # if the store is gone, so is this
            self._store.key_value_set(f"{_TOLD}{self._index}", told)

    def farewell(self) -> None:
        """Waits for the others to be done as well, and watches no longer."""
        with contextlib.suppress(Exception):  # they have said what there is to say
            jax.distributed.shutdown()
        self._ending.set()

    def _watch(self) -> None:
        beat = missed = 0
        while not self._ending.wait(PERIOD):
            beat += 1
            try:
                self._live(beat)
                news = dict(self._store.key_value_dir_get("mu/"))
                missed = 0
            except Exception:
                missed += 1
                if missed < 3:
                    continue
                return self._follow(End(1, "the coordinator no longer answers"))
            if end := self._judge(news):
                return self._follow(end)

    def _live(self, beat: int) -> None:
        mine, key = json.dumps([beat, socket.gethostname()]), f"{_ALIVE}{self._index}"
        self._store.key_value_set(key, mine, allow_overwrite=True)

    def _judge(self, news: dict[str, str]) -> End | None:
        """The failure of another process, if there is one."""
        now = time.monotonic()
        for index in range(self._count):
            if index == self._index:
                continue
            if told := news.get(f"{_TOLD}{index}"):
                status, host, why = json.loads(told)
                return End(status, f"process {index} ({host}) failed: {why}")
            alive = news.get(f"{_ALIVE}{index}", "")
            if alive != self._heard[index][0]:
                self._heard[index] = alive, now
            elif now - self._heard[index][1] > SILENCE:
                host = json.loads(alive)[1] if alive else "its host"
                return End(
                    1,
                    f"process {index} ({host}) has gone silent: killed, or its machine"
                    " is lost; run the same command to go on",
                )
        return None

    def _follow(self, end: End) -> None:
        """Ends this process as another has ended, unless it is ending by itself."""
        self._end = end
        self._other.set()
        if not self._ending.wait(GRACE):
            _leave(end.status, f"mu: {end.why}")


def _leave(status: int, line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    os._exit(status)


_crew: Crew | None = None


def muster(index: int, count: int) -> None:
    """Begins to watch the other processes; to be called once all have met."""
    global _crew
    from jax._src.distributed import global_state  # the store has no public name

    _crew = Crew(global_state.client, index, count)
    atexit.register(_crew.farewell)


@contextlib.contextmanager
def as_one(agreed: type[Exception]) -> Iterator[None]:
    """What fails inside is told to the others, but for what all have `agreed` on.

    An error that is no one's input nor machine ends the process here, with its trace.
    """
    try:
        yield
    except agreed:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if _crew:
            _crew.failed(error)
            if not isinstance(
                error, UserError | OSError | Unreachable | KeyboardInterrupt
            ):
                traceback.print_exc()
                _leave(1, f"mu: {type(error).__name__} on {socket.gethostname()}")
        raise


def end(status: int) -> None:
    """Ends a process that has failed at once: the others do not come to a farewell."""
    if _crew and status in (1, 2, 128 + 2):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def keep_store(address: str, processes: int) -> None:
    """Starts the store on this machine, which is that of process 0.

    Raises:
      Unreachable: it cannot listen there.
    """
    port = address.rpartition(":")[2]
    script = str(Path(coordinator.__file__))
    command = [sys.executable, "-P", script, f"[::]:{port}", str(processes)]
    store = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # what interrupts this process leaves it alone
    )
    assert store.stdout and store.stdin
    if store.stdout.readline() != coordinator.READY:
        raise Unreachable(f"process 0 cannot listen at port {port}")
    atexit.register(_dismiss, store)


def _dismiss(store: subprocess.Popen) -> None:
    """Ends the store, once all are done: exit handlers run the last one first."""
    with contextlib.suppress(OSError):
        store.communicate(coordinator.DONE)
