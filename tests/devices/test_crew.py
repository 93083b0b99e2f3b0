"""What fails in one of several real processes ends all of them, and says which."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import small_run

from mu_jax.devices import crew

WAIT = """
import os, signal, sys, time
from mu_jax.devices import crew, distributed
from mu_jax.errors import UserError
from mu_jax.devices.preemption import Preempted
port, index, last = sys.argv[1], int(sys.argv[2]), sys.argv[3]
distributed.start("127.0.0.1:" + port, 2, index)
print("together", flush=True)
try:
    with crew.as_one(Preempted):
        exec(last)
        time.sleep(500)
except UserError as error:
    print(f"mu: {error}", file=sys.stderr)
    crew.end(2)
"""
"""Each process ends as its last argument says, or waits for ever."""

HOST = socket.gethostname()


def pair(*last: str) -> list[subprocess.Popen]:
    """Two processes that have met and are about to do these things."""
    port = str(small_run.port())
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", WAIT, port, str(i), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, what in enumerate(last)
    ]
    for process in crew:
        assert process.stdout and process.stdout.readline() == "together\n"
    return crew


def said(process: subprocess.Popen, status: int) -> list[str]:
    """The lines of a process that ends within half a minute with this status."""
    lines = process.communicate(timeout=30)[1].splitlines()
    assert process.returncode == status, lines
    assert not any("*** " in line for line in lines)  # no stack of the runtime
    return [line for line in lines if line.startswith("mu: ")]


def test_an_error_in_one_process_is_told_to_all():
    waiting, failing = pair("", "raise UserError('a bad disk', 'a good one')")
    why = "a bad disk; expected a good one"
    assert said(failing, 2) == [f"mu: {why}"]
    assert said(waiting, 2) == [f"mu: process 1 ({HOST}) failed: {why}"]


def test_a_fault_of_the_program_is_told_to_all():
    failing, waiting = pair("1 / 0", "")
    assert said(failing, 1) == [f"mu: ZeroDivisionError on {HOST}"]
    assert said(waiting, 1) == [f"mu: process 0 ({HOST}) failed: division by zero"]


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_is_killed_is_missed(index):
    both = pair("", "")
    killed, waiting = both[index], both[1 - index]
    os.kill(killed.pid, signal.SIGKILL)
    (line,) = said(waiting, 1)
    assert line.startswith(f"mu: process {index} ({HOST}) has gone silent: killed")
    killed.communicate()


def test_alone_nothing_is_told():
    with pytest.raises(KeyError), crew.as_one(FileNotFoundError):
        raise KeyError
    crew.end(2)  # comes back
