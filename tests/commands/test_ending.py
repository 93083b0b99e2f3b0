"""How a command ends that did not go well: one line that says what helps, a status."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import small_run

from mu_jax.__main__ import main
from mu_jax.commands.ending import GONE, told
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError

ROOT = Path(__file__).parents[2]
TINY = "configs/tiny.py"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device (/x); what was whole"),
        (errno.ENOSPC, "free space or choose another --runs, and run the same"),
        (errno.EACCES, "Permission denied (/x)"),
        (errno.EACCES, "give yourself the right to it"),
        (errno.EROFS, "can only be read: choose another --runs"),
        (errno.ENOTDIR, "a file is where a folder should be"),
        (errno.ELOOP, "links lead in a circle"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "Input/output error (/x); what was whole before still is; run the"),
    ],
)
def test_each_error_of_the_machine_has_its_own_remedy(number, said):
    line, status = told(OSError(number, os.strerror(number), "/x"))
    assert said in line and status == 1
    assert ("free space" in line) == (number == errno.ENOSPC)


def test_libraries_that_tell_it_in_their_own_words_are_understood():
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    assert "free space" in told(error)[0]
    for full in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")):
        assert "not enough memory" in told(full)[0]


def test_what_is_nobodys_fault_but_ours_is_no_line():
    with pytest.raises(ZeroDivisionError):
        told(ZeroDivisionError())
    statuses = (UserError("x"), KeyboardInterrupt(), Preempted(), BrokenPipeError())
    assert [told(e)[1] for e in statuses] == [2, 130, 143, GONE]


def test_a_path_too_long_or_in_a_circle_is_told_as_that(capsys, tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for runs, said in (
        (tmp_path / "circle" / "x", "links lead in a circle"),
        (tmp_path / ("x" * 300), "choose a shorter name"),
    ):
        assert main(["facts", str(ROOT / TINY), "--runs", str(runs)]) == 1
        err = capsys.readouterr().err
        assert said in err and "free space" not in err


# ---- a closed pipe


def piped(*args: str, stream: str, cache: Path) -> subprocess.CompletedProcess:
    """`mu ARGS` in a process one of whose streams is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    env = {**os.environ, "MU_JAX_CACHE": str(cache)}
    command = [sys.executable, "-m", "mu_jax", *args]
    try:
        return subprocess.run(command, **streams, text=True, cwd=ROOT, env=env)
    finally:
        os.close(write)


@pytest.mark.parametrize(
    ("args", "stream"),
    [
        (["--help"], "stdout"),
        (["run", TINY, "--help"], "stdout"),
        (["delta"], "stderr"),
        (["run", "nowhere"], "stderr"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_nobody_reads_ends_quietly(tmp_path, args, stream):
    done = piped(*args, stream=stream, cache=tmp_path)
    assert done.returncode == (2 if "nowhere" in args else GONE)
    assert not (done.stdout if stream == "stderr" else done.stderr)


def test_a_full_disk_behind_a_pipe_is_told_as_such(tmp_path):
    command = [sys.executable, "-m", "mu_jax", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr and "free space" in done.stderr


LEAVE = """
import os, sys
from mu_jax.console import Console
Console.quiet_seconds = 0  # it speaks at every step
def watch(event, args):
    if event == "os.rename" and str(args[1]).endswith("state/2"):
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 2)
sys.addaudithook(watch)
"""
"""Has stderr become a pipe that nobody reads, once two steps are made."""


def test_a_run_that_nobody_reads_saves_and_stops_and_can_go_on(small, tmp_path):
    run, cache = small_run.unfinished(small, tmp_path, "edits/top")
    done = piped("edit", str(run), stream="stderr", cache=cache)
    assert done.returncode == GONE and not done.stdout  # before it had begun
    assert not (run / "edits").exists()
    args = ["edit", str(run)]
    said = small_run.ended(small_run.start(args, cache, script=LEAVE), GONE)
    assert "Traceback" not in said
    assert small_run.names(run / "edits/top/state") == ["3"]
    said = small_run.ended(small_run.start(args, cache))
    assert "going on behind step 3\n" in said
    assert small_run.weights(run) == small_run.weights(small[1])


def test_the_status_is_that_of_a_tool_which_a_pipe_ended():
    assert GONE == 128 + signal.SIGPIPE == 141
