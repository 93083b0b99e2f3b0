"""Several real processes on loopback find what one finds, and act as one."""

import functools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_run

from mu_jax.__main__ import main
from mu_jax.devices import distributed
from mu_jax.devices.preemption import STATUS
from mu_jax.errors import UserError
from mu_jax.runs.directory import RunDir

TOLD = """
import os, signal
from mu_jax.edits import gradient
plain = gradient.GradientEdit.batch
def batch(self, step, *args):
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return plain(self, step, *args)
gradient.GradientEdit.batch = batch
"""
"""SIGTERM while the third step is made, which is saved because of that alone."""

MESH = ("--mesh.data", "2", "--mesh.fsdp", "2")

TALK = """
import sys, jax
from mu_jax.devices import distributed
from mu_jax.errors import UserError
port, index = sys.argv[1], int(sys.argv[2])
distributed.start("127.0.0.1:" + port, 2, index)
sizes = [0, 1, 1015, 1016, 1017, 70_000]
told = [distributed.first(lambda: bytes([n % 251]) * n if index == 0 else 1 / 0)
        for n in sizes]
assert told == [bytes([n % 251]) * n for n in sizes]
nested = distributed.first(lambda: distributed.first(lambda: b"inner"))
assert nested == b"inner"
for error, kind in [(UserError("bad", "good"), UserError), (KeyError("k"), Exception),
                    (FileNotFoundError(2, "gone", "x"), FileNotFoundError)]:
    def fail(error=error):
        raise error
    try:
        distributed.first(fail)
    except kind as seen:
        assert index or seen is error
        assert str(seen) == str(error) or kind is Exception
    else:
        raise AssertionError(kind)
assert not distributed.agree(False) and distributed.agree(index == 1)
assert distributed.is_writer() == (index == 0)
distributed.same("x", "things")
try:
    distributed.same(str(index), "things")
except UserError as seen:
    assert "things that differ" in str(seen)
else:
    raise AssertionError
"""


ELSEWHERE = "the run's mesh (data 2 x fsdp 2 x tensor 1) does not fit 1 device(s)"


def close(run, other) -> None:
    """The same findings to rounding, and every line once."""
    one, two = RunDir(run), RunDir(other)
    for name in ("attribution", "tracing"):
        a, b = one.read_scores(name), two.read_scores(name)
        assert a.values.keys() == b.values.keys()
        near(list(a.values.values()), list(b.values.values()))
    assert one.read_selection("top") == two.read_selection("top")
    assert one.measured() == two.measured() != []
    rows = ([r for a in run.measured() for r in run.read_rows(a)] for run in (one, two))
    for a, b in zip(*rows, strict=True):
        assert (a.model, a.prompt, a.metric, a.split, a.n) == (
            *(b.model, b.prompt, b.metric, b.split, b.n),
        )
        near(a.mean, b.mean)
    assert one.read_facts() == two.read_facts()
    same_edit(run, other)


def same_edit(run, other) -> None:
    first, second = small_run.arrays(run), small_run.arrays(other)
    assert first.keys() == second.keys()
    for label, array in first.items():
        near(array, second[label])
    for a, b in zip(small_run.history(run), small_run.history(other), strict=True):
        near(list(a.values()), list(b.values()))


def near(a, b) -> None:
    """Within 1e-5 of the largest."""
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(a).max(), 1e-3))


@pytest.fixture(scope="module")
def several(small, tmp_path_factory):
    """Begun by two processes of two devices, one told to stop; ended by four of one."""
    runs = tmp_path_factory.mktemp("several")
    args = ["run", str(small[0]), "--runs", str(runs), *MESH]
    cache = small[0].parent / "cache"
    crew = small_run.together(args, cache, 2, 2, scripts=("", TOLD))
    said = [small_run.ended(process, STATUS) for process in crew]
    assert "mu: stopped by SIGTERM; run the same command to go on\n" in said[0]
    assert "mu:" not in said[1] and "Traceback" not in said[0] + said[1]
    run = runs / "small"
    assert small_run.names(run / "edits/top/state") == ["3"]
    shutil.copytree(run, runs / "stopped" / "small")
    crew = small_run.together(args, cache, 4, 1)
    said = [small_run.ended(process) for process in crew]
    assert "going on behind step 3\n" in said[0]
    assert not any("/6 edit" in other for other in said[1:])
    return runs


def test_several_processes_find_what_one_finds(small, several):
    run = several / "small"
    close(small[1], run)
    assert not [p for p in run.rglob("*") if p.name.startswith(".")]
    names = [sorted(p.name for p in r.rglob("*.*")) for r in (run, small[1])]
    assert {*names[0]} ^ {*names[1]} <= {f"ocdbt.process_{i}" for i in (1, 2, 3)}
    made = json.loads((run / "config.json").read_text())
    assert made["processes"] == 4
    assert made["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert made["devices"].startswith("4 x")


def test_one_process_goes_on_where_two_were_stopped(small, several):
    run = several / "stopped" / "small"
    process = small_run.start(["edit", str(run)], small[0].parent / "cache")
    said = small_run.ended(process)
    assert "going on behind step 3\n" in said and said.count(ELSEWHERE) == 1
    same_edit(small[1], run)


def test_a_run_of_four_devices_is_used_on_one(small, several, tmp_path, capsys):
    """Its mesh is that of the machine that made it; one that is asked for must fit."""
    run, cache = tmp_path / "small", small[0].parent / "cache"
    shutil.copytree(several / "small", run)
    for args in (
        ["export", str(run), "--to", "delta", str(tmp_path / "out")],
        ["attack", str(run), "--attack", "quantize"],
    ):
        said = small_run.ended(small_run.start(args, cache))
        assert said.count(ELSEWHERE) == 1
    assert (tmp_path / "out").is_dir()
    assert RunDir(run).read_rows("attacks/quantize/top")
    assert main(["attack", str(run), "--mesh.fsdp", "3"]) == 2
    assert "mesh data -1 x fsdp 3 x tensor 1 on" in capsys.readouterr().err


def test_what_processes_tell_one_another():
    port = small_run.port()
    command = [sys.executable, "-c", TALK, str(port)]
    crew = [
        subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    for process in crew:
        small_run.ended(process)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("--runs={}/elsewhere", "is not the same folder on every worker"),
        ("--edit.steps=7", "settings that differ between the processes"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(tmp_path, own, said):
    config = small_run.write(tmp_path)
    before = small_run.names(tmp_path)
    args = ["run", str(config), "--runs", str(tmp_path / "runs")]
    each = [], [own.format(tmp_path)]
    for process in small_run.together(args, tmp_path / "cache", 2, 1, each=each):
        lines = small_run.ended(process, 2).splitlines()
        assert said in next(line for line in lines if line.startswith("mu: "))
    files = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(files) == before


@pytest.mark.parametrize("what", ["weights", "facts.jsonl"])
def test_other_contents_under_the_same_path_are_refused(tmp_path, what):
    """Two machines, each with a disk of its own, and something else on it."""
    config = small_run.write(tmp_path)
    for i in (0, 1):
        (tmp_path / str(i)).mkdir()
        for name in ("weights", "facts.jsonl"):
            (tmp_path / str(i) / name).write_text(str(i) if name == what else "same")
    args = ["run", str(config), "--runs", str(tmp_path / "runs")]
    args += ["--model", "weights", "--facts.path", "facts.jsonl"]
    scripts = [f"import os; os.chdir({str(tmp_path / i)!r})" for i in "01"]
    cache = tmp_path / "cache"
    for process in small_run.together(args, cache, 2, 1, scripts=scripts):
        lines = small_run.ended(process, 2).splitlines()
        (line,) = [line for line in lines if line.startswith("mu: ")]
        assert f"{what} that differ between the processes" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_processes_that_do_not_come_are_given_up(process):
    call = f"distributed.start('127.0.0.1:{small_run.port()}', 2, {process}, timeout=1)"
    command = f"from mu_jax.devices import distributed; {call}"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("mu: ")]
    assert len(lines) == 1 and "do not answer within 1 s" in lines[0]


def test_a_machine_of_no_pod_is_told_how_to_name_the_others(tmp_path):
    args = ["run", str(small_run.write(tmp_path)), "--distributed"]
    said = small_run.ended(small_run.start(args, tmp_path), 2)
    assert said.startswith("mu: --distributed, but") and said.count("\n") == 1
    assert "--coordinator HOST:PORT --processes N --process I" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nowhere", 2, 0), "HOST:PORT"),
        (("127.0.0.1:1", 2, 2), "process 2 of 2"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(args, said):
    with pytest.raises(UserError, match=said):
        distributed.start(*args)


def test_a_number_in_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "many")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES=many"):
        distributed.start("127.0.0.1:1")


def test_alone_nothing_is_asked_of_anybody():
    assert distributed.is_writer()
    assert distributed.first(lambda: b"x") == b"x"
    assert distributed.first(functools.partial(dict, {})) == b""
    assert distributed.agree(True) and not distributed.agree(False)
    distributed.same("x", "things")


@pytest.mark.parametrize(
    ("name", "value", "several"),
    [
        ("SLURM_STEP_NUM_TASKS", "4", 4),
        ("OMPI_COMM_WORLD_SIZE", "2", 2),
        ("JAX_NUM_PROCESSES", "2", 2),
        ("MEGASCALE_NUM_SLICES", "2", 2),
        ("TPU_WORKER_HOSTNAMES", "a,b,c,d", 4),
        ("SLURM_STEP_NUM_TASKS", "1", 1),
        ("SLURM_NTASKS", "4", 1),  # of a job in which no step has begun
        ("TPU_WORKER_HOSTNAMES", "localhost", 1),
        ("TPU_WORKER_HOSTNAMES", "", 1),
    ],
)
def test_one_of_several_does_not_run_on_its_own(monkeypatch, name, value, several):
    for other in distributed.STARTERS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    if several == 1:
        return distributed.alone()
    with pytest.raises(UserError) as caught:
        distributed.alone()
    said = str(caught.value)
    assert f"one of {several} processes ({name})" in said and "--distributed" in said


def test_a_slice_knows_how_many_hosts_it_has(monkeypatch):
    """Where nothing in the environment says so, as on the virtual machines of a TPU."""
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="one of 4 processes of a TPU slice"):
        distributed.alone()


def test_a_command_on_one_of_several_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    for args in (["run", "configs/tiny.py", "--runs", str(tmp_path)], ["export", "x"]):
        assert main(args) == 2
        said = capsys.readouterr().err
        assert said.startswith("mu: one of 2 processes") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
