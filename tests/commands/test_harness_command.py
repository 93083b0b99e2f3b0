"""`mu harness`, on a run of the tiny model whose edits are made up."""

import dataclasses
import io
import re
import runpy

import made_tasks
import numpy as np
import pytest

from mu_jax.__main__ import main
from mu_jax.checkpoints import edits
from mu_jax.commands.harness import benchmark
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.evals import continuations
from mu_jax.evals.harness import Harness
from mu_jax.model.params import name_axes
from mu_jax.runs.directory import RunDir
from mu_jax.runs.records import encode
from mu_jax.runs.run import Run
from mu_jax.selectors import Layers
from mu_jax.types import Edit, Row

pytestmark = pytest.mark.usefixtures("quick")
OTHER = Row.of(np.array([0.5, 1]), model="unedited", eval="recall", split="forget",
               prompt="mu_choice", metric="acc")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(made_tasks.write(tmp_path_factory.mktemp("tasks") / "own"))


@pytest.fixture
def harness(folder):
    return Harness(("mu_choice", "mu_both"), batch=8, include_path=folder)


@pytest.fixture
def run(tmp_path, tiny):
    """A run with two edits, one of them made, and a row of another evaluation."""
    config = runpy.run_path("configs/tiny.py")["get_config"]()
    made = Run(config, RunDir(tmp_path / "run"), Console(io.StringIO()))
    made.__dict__["model"] = tiny
    selection = dataclasses.replace(
        Layers(mlp=(1, 2))(None, tiny.sizes), name="attribution"
    )
    made.dir.write_selection(selection)
    made.dir.write_edited(selection)
    rng, params = np.random.default_rng(0), {}
    for label, array in tiny.selected(selection).items():
        plain = np.asarray(array.unwrap(*array.named_shape))
        moved = plain + 0.5 * rng.standard_normal(plain.shape, np.float32)
        params[label] = name_axes(label, moved, tiny.spec)
    edits.save(made.dir.edit("attribution") / "params", params)
    made.dir.write_lines("edits/attribution/history.jsonl", [])
    made.dir.write_json("config.json", {"config": encode(config)})
    made.dir.write_rows("evals/unedited", [OTHER])
    for artefact in ("edits/attribution", "evals/unedited"):
        made.dir.stamp(artefact, made.fingerprint(artefact))
    return made


def said(run):
    return run.console.rich.file.getvalue()


def test_rows_join_those_of_the_run(run, harness, tiny):
    names = ("unedited", "attribution")
    found = benchmark(run, harness, names)
    stored = run.rows()
    assert stored[0] == OTHER
    key = lambda row: (row.model, row.prompt, row.metric)
    assert sorted(stored[1:], key=key) == sorted(found, key=key)
    selection = run.dir.read_selection("attribution")
    params = edits.restore(run.dir.edit("attribution") / "params", selection, tiny.spec)
    for name, model in zip(
        names, (tiny, tiny.update(Edit(selection, params, []))), strict=True
    ):
        mine = {key(row): row for row in found if row.model == name}
        assert mine == {key(row): row for row in harness(model, name)}
    before, after = ([r.values for r in found if r.model == n] for n in names)
    assert before != after


def test_what_is_measured_is_not_measured_again(run, harness):
    benchmark(run, harness, ["unedited"])
    first = run.rows()
    benchmark(run, harness, ["unedited"])
    assert said(run).count("asking") == 2 and said(run).count("up to date") == 2
    few = dataclasses.replace(harness, tasks=("mu_choice",), limit=2)
    benchmark(run, few, ["unedited"])
    assert said(run).count("asking") == 3
    changed = {(r.eval, r.prompt) for r in run.rows() if r not in first}
    assert changed == {("harness", "mu_choice")}
    assert OTHER in run.rows() and len(run.rows()) == len(first)
    run.force = True
    benchmark(run, few, ["unedited"])
    assert said(run).count("asking") == 4


def test_what_was_asked_before_a_kill_is_not_asked_again(run, harness, monkeypatch):
    """Stopped at the second batch; the first is not read once more."""
    few = dataclasses.replace(harness, tasks=("mu_choice",), batch=1)
    whole = benchmark(run, few, ["unedited"])
    monkeypatch.setattr(run, "force", True)
    read, plain = [], continuations._read

    def killed(*args):
        if read:
            raise KeyboardInterrupt
        read.append(args)
        return plain(*args)

    monkeypatch.setattr(continuations, "_read", killed)
    with pytest.raises(KeyboardInterrupt):
        benchmark(run, few, ["unedited"])
    monkeypatch.setattr(run, "force", False)
    counted = []
    count = lambda *args: counted.append(args) or plain(*args)
    monkeypatch.setattr(continuations, "_read", count)
    run.dir.unstamp("harness/unedited/mu_choice")
    assert benchmark(run, few, ["unedited"]) == whole
    again = len(counted)
    run.dir.unstamp("harness/unedited/mu_choice")
    assert benchmark(run, few, ["unedited"]) == whole
    assert len(counted) == again + again + 1
    assert not list(run.dir.path.rglob("*.partial"))


def test_rows_of_another_model_or_edit_are_left_out(run, harness):
    few = dataclasses.replace(harness, tasks=("mu_choice",), limit=2)
    both = benchmark(run, few, ["unedited", "attribution"])
    assert len(run.rows()) == 1 + len(both)
    edit = dataclasses.replace(run.config.edit, steps=99)
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, edit=edit))
    assert {row.model for row in other.rows()} == {"unedited"}
    assert "harness/attribution/mu_choice: of other settings, left out" in said(run)


def test_bad_questions_are_refused_before_anything_is_measured(run, harness):
    with pytest.raises(
        UserError, match=r"edits/early .* is missing; .* `mu edit` makes"
    ):
        benchmark(run, harness, ["early"])
    with pytest.raises(UserError, match=r"no edit called 'atribution'.*attribution"):
        benchmark(run, harness, ["atribution"])
    run.config = dataclasses.replace(run.config, selections={})
    with pytest.raises(UserError, match=r"a run without edits; .*--edit unedited"):
        benchmark(run, harness)
    assert run.rows() == [OTHER]


def test_an_edit_that_is_not_made_is_left_out_and_named(run, harness):
    few = dataclasses.replace(harness, tasks=("mu_choice",), limit=2)
    assert {row.model for row in benchmark(run, few)} == {"unedited", "attribution"}
    assert "early is left out: edits/early" in said(run)
    run.dir.unstamp("edits/attribution")
    with pytest.raises(UserError, match=r"edits/early .* is missing"):
        benchmark(run, few)


def test_the_command(run, folder, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    options = ["--include-path", folder, "--edit", "unedited", "attribution"]
    path = str(run.dir.path)
    assert main(["harness", path, "--tasks", "mu_both", *options, "--limit", "2"]) == 0
    shown = capfd.readouterr().err
    assert "mu_both" in shown and "95 % intervals" in " ".join(shown.split())
    assert "mu_both: acc (n=4)" in shown
    for model in ("unedited", "attribution"):
        lines = shown[shown.index(f"\n {model} ") :].splitlines()
        assert re.search(r"0\.\d\d", lines[1]) and re.search(r"\[0\.\d\d, ", lines[2])
    assert len(run.rows()) > 1
    for args, message in (
        ([path], "the following arguments are required: --tasks"),
        ([path, "--tasks", "a", "--limit", "x"], "invalid int value: 'x'"),
        ([path, "--tasks", "a", "--lim", "2"], "unrecognized arguments: --lim 2"),
        (["nowhere", "--tasks", "a"], "no run directory nowhere"),
        ([path, "--tasks", ","], "no tasks"),
    ):
        assert main(["harness", *args]) == 2
        complaint = capfd.readouterr().err
        assert message in complaint and complaint.startswith("mu: ")
