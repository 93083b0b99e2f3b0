"""Attacks, masks, baselines, sweeps and comparisons as a user runs them."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_run

from mu_jax import stages
from mu_jax.__main__ import main
from mu_jax.commands.sweep import _with
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.evals import EVALS
from mu_jax.report import score
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run
from mu_jax.selectors import Layers
from mu_jax.types import UNEDITED

BASELINES = """
import dataclasses
from small import get_config as small
from mu_jax.runs.config import Baseline
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.rome import ROME
from mu_jax.edits.staged import Sequential
from mu_jax.selectors import Layers


def get_config():
    base = small()
    return dataclasses.replace(
        base,
        name="baselines",
        selections={**base.selections, "heads": Layers(attn=(2,))},
        baselines={
            "rome": Baseline("top", ROME()),
            "sequence": Baseline(
                "top",
                Sequential(steps=1, parts=2, forget_batch=4, retain_batch=4),
            ),
            "wrong": Baseline("heads", ROME()),
        },
    )
"""


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MU_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """A copy of the small run."""
    path = tmp_path_factory.mktemp("attacked") / "small"
    shutil.copytree(small[1], path)
    return path


def rows(run):
    """Those that are there, and were made with the run's settings."""
    return Run(load(str(run)), RunDir(run), Console()).rows()


def contents(run) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()}


def refused(capsys, *args) -> str:
    """The one line that a refused command says."""
    assert main([str(a) for a in args]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def attacked(run):
    """The rows before, and those that two attacks add."""
    before = rows(run)
    options = ["--attack", "quantize,restore", "--attack-seeds", "0", "1"]
    assert main(["attack", str(run), *options]) == 0
    return before, rows(run)


def test_an_attack_adds_rows_and_changes_none(attacked):
    before, after = attacked
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert {r.eval for r in new} == {"quantize", "restore"}
    of = lambda name: {r.model for r in new if r.eval == name}
    assert of("quantize") == {"top", UNEDITED}
    assert of("restore") == {"top"}  # nothing is to be undone of the unedited model
    assert {r.seed for r in new} == {0, 1}
    assert {r.split for r in new} == {"forget", "never_knew", "heldout"}


def test_an_attack_that_is_done_is_not_made_again(run, attacked, capsys):
    files = [run / f"attacks/{kind}/top.jsonl" for kind in ("quantize", "restore")]
    stamps = [file.stat().st_mtime_ns for file in files]
    options = ["--attack", "quantize,restore", "--attack-seeds", "0", "1"]
    assert main(["attack", str(run), *options]) == 0
    assert capsys.readouterr().err.count("up to date") == 3
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_evaluating_again_leaves_attacks_alone(run, attacked):
    assert main(["evaluate", str(run), "--recall.limit", "7"]) == 0
    kept = [r for r in rows(run) if r.eval in ("quantize", "restore")]
    assert kept == [r for r in attacked[1] if r.eval in ("quantize", "restore")]
    assert {r.n for r in rows(run) if r.eval == "recall" and r.split == "forget"} == {7}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attack", "nonsense"], "--attack nonsense; expected one of"),
        (["--edit", "late"], "--edit late; expected one of top"),
        (["--attack", "hints", "--attack-formats", "x"], "prompt format 'x'"),
        (["--attack-seeds", "1", "1"], "expected different seeds"),
    ],
)
def test_an_attack_that_makes_no_sense_is_refused(run, attacked, capsys, options, said):
    before = contents(run)
    assert said in refused(capsys, "attack", run, *options)
    assert contents(run) == before


def test_an_attack_on_a_run_without_edits_says_who_makes_them(small, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(small[1], bare)
    shutil.rmtree(bare / "edits")
    shutil.rmtree(bare / "stamps/edits")
    before = contents(bare)
    assert "mu edit" in refused(capsys, "attack", bare)
    assert contents(bare) == before


def test_settings_that_another_command_gives_meanwhile_stay(small, tmp_path, capsys):
    """An attack of the unedited model ends long after the edit was made anew."""
    path = shutil.copytree(small[1], tmp_path / "run")
    attacking = Run(load(str(path)), RunDir(path), Console(said := io.StringIO()))
    under_way = attacking.todo([f"attacks/quantize/{UNEDITED}"], shared=True)
    artefact = next(under_way)
    assert main(["edit", str(path), "--edit.steps", "2"]) == 0
    attacking.dir.write_rows(artefact, [])
    assert next(under_way, None) is None
    assert load(str(path)).edit.steps == 2
    assert said.getvalue().count("other settings by another command") == 1
    assert main(["export", str(path), "--to", "delta", str(tmp_path / "out")]) == 0
    assert RunDir(path).stamped(artefact)


def test_an_edit_that_is_being_made_is_not_called_missing(small, tmp_path, capsys):
    """By another process, of which there is a real one."""
    path = shutil.copytree(small[1], tmp_path / "run")
    RunDir(path).unstamp("edits/top")
    code = (
        "from mu_jax.runs.directory import RunDir; from pathlib import Path\n"
        f"with RunDir(Path({str(path)!r})).held('edits/top'):\n"
        "    print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, text=True, stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == "held\n"
        said = refused(capsys, "export", path, "--to", "delta", tmp_path / "out")
        other.communicate("\n")
    assert "edits/top" in said and "is being made by another command" in said
    assert "wait until that has ended" in said
    said = refused(capsys, "export", path, "--to", "delta", tmp_path / "out")
    assert "is missing" in said and f"run: mu edit {path}" in said


def test_a_model_that_cannot_be_read_is_no_attack_that_brings_nothing(
    small, tmp_path, monkeypatch, capsys
):
    path = shutil.copytree(small[1], tmp_path / "run")

    def gone(run, name):
        raise UserError(f"edits/{name} is gone")

    monkeypatch.setattr(sys.modules["mu_jax.stages.attack"], "victim", gone)
    assert "edits/unedited is gone" in refused(capsys, "attack", path)
    assert not (path / "attacks").exists()


def test_a_report_leaves_out_and_names_what_is_stale(small, tmp_path):
    path = shutil.copytree(small[1], tmp_path / "run")
    config = load(str(path))
    selections = {"heads": Layers(attn=(2,)), **config.selections}
    config = dataclasses.replace(config, selections=selections)
    run = Run(config, RunDir(path), Console(said := io.StringIO()))
    stages.start(run, "select")
    stages.start(run, "report")
    told = said.getvalue()
    assert f"heads is left out: edits/heads in {path} is missing" in told
    assert f"run: mu edit {path}" in told
    text = (path / "report.md").read_text()
    assert "| top |" in text and "heads" not in text


def test_a_mask_has_a_curve_and_a_control(run):
    knobs = ["--mask.learn.steps", "1", "--mask.shares", "0.1", "--mask.limit", "4"]
    knobs += ["--mask.learn.forget-batch", "4", "--mask.learn.retain-batch", "4"]
    assert main(["mask", str(run), *knobs]) == 0
    found = [r for r in rows(run) if r.eval == "mask"]
    sizes = {r.at for r in found}
    assert {at.partition("=")[0] for at in sizes} == {"size", "random"}
    assert {r.model for r in found} == {"top"}
    assert not (run / "masks/top/state").exists()


def test_edited_models_are_measured_as_they_are_shipped(run, capsys):
    """Rows of their own, beside those that were there."""
    before, again = rows(run), ["evaluate", str(run), "--as", "bfloat16"]
    assert main(again) == 0
    found = rows(run)
    new = [r for r in found if r.model.endswith(" as bfloat16")]
    assert [r for r in found if r not in new] == before
    plain = [r for r in before if r.eval != "relearn" and r.model == "top"]
    measured = lambda rows: {(r.eval, r.split, r.prompt, r.metric) for r in rows}
    ours = [r for r in new if r.model == "top as bfloat16"]
    assert measured(ours) == measured(r for r in plain if r.eval in EVALS)
    assert [r.values for r in ours] != [r.values for r in plain if r.eval in EVALS]
    capsys.readouterr()
    assert main(again) == 0
    assert "rounded/bfloat16/top: up to date" in capsys.readouterr().err
    assert main(["report", str(run)]) == 0
    assert "| top as bfloat16 | mlp" in (run / "report.md").read_text()
    assert "--as float8; expected --as bfloat16" in refused(
        capsys, "evaluate", run, "--as", "float8"
    )
    assert "mu attack --as" in refused(capsys, "attack", run, "--as", "bfloat16")


@pytest.fixture(scope="module")
def baselines(small, run, monkeypatch_module):
    """A run with baselines, begun from the small one's facts and scores."""
    folder = small[0].parent
    monkeypatch_module.syspath_prepend(str(folder))
    config = folder / "baselines.py"
    config.write_text(BASELINES)
    path = folder / "runs" / "baselines"
    shutil.copytree(run, path)
    return config, path


@pytest.fixture(scope="module")
def monkeypatch_module():
    patch = pytest.MonkeyPatch()
    yield patch
    patch.undo()


def test_baselines_are_made_until_one_does_not_fit(baselines, capsys):
    config, path = baselines
    runs = ["--runs", str(path.parent)]
    assert main(["select", str(config), *runs]) == 0
    said = refused(capsys, "edit", config, *runs)
    assert "mlp/down" in said
    run = RunDir(path)
    rome = run.read_edited("rome")
    ((label, layers),) = rome.tensors
    assert label == "mlp/down" and len(layers) == 1
    assert (path / "covariances").is_dir()


def test_a_sequence_is_localized_part_by_part(baselines):
    _, path = baselines
    run = RunDir(path)
    parts = [run.read_selection(f"top.{i}of2") for i in (1, 2)]
    union = {(label, i) for s in parts for label, layers in s.tensors for i in layers}
    edited = run.read_edited("sequence")
    assert union == {(k, i) for k, layers in edited.tensors for i in layers}
    history = (path / "edits/sequence/history.jsonl").read_text().splitlines()
    assert len(history) == 2


def test_attacks_of_several_edits_at_once_lose_nothing(baselines, capsys):
    """Real processes in one run directory."""
    config, path = baselines
    assert main(["select", str(config), "--runs", str(path.parent)]) == 0
    refused(capsys, "edit", config, "--runs", str(path.parent))  # all but one
    cache = Path(os.environ["MU_JAX_CACHE"])
    args = ["attack", str(config), "--runs", str(path.parent), "--attack", "quantize"]
    names, here = (
        ("rome", "sequence"),
        f"import sys; sys.path[:0] = [{str(config.parent)!r}]",
    )
    crew = [small_run.start([*args, "--edit", n], cache, script=here) for n in names]
    for process in crew:
        small_run.ended(process)
    for name in names:
        found = RunDir(path).read_rows(f"attacks/quantize/{name}")
        assert found and {row.model for row in found} == {name}
        assert RunDir(path).stamped(f"attacks/quantize/{name}")
    assert RunDir(path).stamped(f"attacks/quantize/{UNEDITED}")
    assert not list(path.rglob("*.lock"))


@pytest.mark.parametrize("stage", ["edit", "evaluate"])
def test_some_edits_alone_are_made_and_measured(baselines, capsys, stage):
    config, path = baselines
    where = [stage, str(config), "--runs", str(path.parent)]
    capsys.readouterr()
    assert main([*where, "--edit", "rome"]) == 0
    said = capsys.readouterr().err
    assert "rome" in said and "sequence" not in said
    assert "--edit x; expected one of top, heads" in refused(
        capsys, *where, "--edit", "x"
    )


def test_what_an_input_holds_is_looked_at_once(small, run, audit):
    facts, opened = str(small[0].with_name("facts.jsonl")), []
    watch = lambda event, args: opened.append(args[0]) if event == "open" else None
    with audit(watch):
        assert main(["select", str(run)]) == 0
    assert [str(path) for path in opened].count(facts) == 1


@pytest.fixture(scope="module")
def swept(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    args = ["sweep", str(small[0]), "--runs", str(folder), "--edit.steps", "2"]
    assert main([*args, "--over", "edit.seed", "0", "1"]) == 0
    return folder


def test_a_sweep_makes_a_run_a_value_and_shares_what_it_can(swept):
    names = sorted(path.name for path in swept.iterdir())
    assert names == ["small.edit.seed-0", "small.edit.seed-1"]
    zero, one = (swept / name for name in names)
    for same in ("facts.jsonl", "scores/tracing.json", "selections/top.json"):
        assert (zero / same).read_bytes() == (one / same).read_bytes()
    losses = [(path / "edits/top/history.jsonl").read_text() for path in (zero, one)]
    assert losses[0] != losses[1]


def test_another_sweep_of_the_config_measures_nothing_again(
    small, swept, tmp_path, capsys
):
    """What the unedited model says among it; but not where the facts are others."""
    shutil.copytree(swept, folder := tmp_path / "runs")
    args = ["sweep", str(small[0]), "--runs", str(folder), "--edit.steps", "2"]
    capsys.readouterr()
    assert main([*args, "--over", "edit.learning_rate", "1e-3"]) == 0
    said = "".join(capsys.readouterr())
    shared = "facts", "scores/tracing", "selections/top", "evals/unedited"
    for artefact in shared:
        assert f"{artefact}: up to date" in said
    assert "evals/top: up to date" not in said
    new, old = folder / "small.edit.learning_rate-1e-3", folder / "small.edit.seed-0"
    for file in ("evals/unedited.jsonl", "asked.jsonl"):
        assert (new / file).read_bytes() == (old / file).read_bytes()
    assert main([*args, "--over", "facts.seed", "5"]) == 0
    said = "".join(capsys.readouterr())
    assert not any(f"{artefact}: up to date" in said for artefact in shared)


def test_cells_of_a_sweep_at_once_are_those_of_one_after_the_other(
    small, swept, tmp_path
):
    """Real processes, a cell each, with one folder of runs."""
    cache = Path(os.environ["MU_JAX_CACHE"])
    args = ["sweep", str(small[0]), "--runs", str(tmp_path), "--edit.steps", "2"]
    over = [[*args, "--over", "edit.seed", seed] for seed in "01"]
    for process in [small_run.start(command, cache) for command in over]:
        small_run.ended(process)
    for run in swept.iterdir():
        again = tmp_path / run.name
        assert small_run.history(again) == small_run.history(run)
        for artefact in ("evals/unedited", "evals/top", "edits/top"):
            assert (
                RunDir(again).stamped(artefact) == RunDir(run).stamped(artefact) != ""
            )
        near = [RunDir(r).read_rows("evals/top") for r in (again, run)]
        assert [row.mean for row in near[0]] == [row.mean for row in near[1]]


@pytest.fixture(scope="module")
def tuned(small, tmp_path_factory):
    """A run whose learning rate was chosen; a random model's answers say nothing."""
    folder = tmp_path_factory.mktemp("tuned")
    patch = pytest.MonkeyPatch()
    loss = lambda rows, model: next(
        -row.mean for row in rows if (row.model, row.metric) == (model, "kl")
    )
    patch.setitem(score.METRICS, "score", loss)
    common = [str(small[0]), "--runs", str(folder), "--facts.tune", "4"]
    common += ["--edit.steps", "2"]
    rates = ["--over", "edit.learning_rate", "1e-3", "1e-5", "1e-4"]
    assert main(["sweep", *common, *rates, "--choose", "score"]) == 0
    patch.undo()
    assert main(["run", *common]) == 0
    return folder, common


def test_a_setting_is_chosen_on_facts_of_no_report_and_the_run_made_with_it(tuned):
    folder, _ = tuned
    (choice,) = RunDir(folder / "small").read_choices()
    assert (choice.model, choice.setting, choice.value) == (
        "top",
        "learning_rate",
        1e-5,
    )
    assert [*choice.tried] == ["1e-3", "1e-5", "1e-4"] and len(choice.facts) == 4
    assert choice.tried["1e-5"] > choice.tried["1e-4"] > choice.tried["1e-3"]
    made = load(str(folder / "small"))
    assert made.edit_of("top").learning_rate == 1e-5 != made.edit.learning_rate
    facts = RunDir(folder / "small").read_facts()
    reported = {k.fact.id for k in facts.known if k.split in ("forget", "heldout")}
    for value in choice.tried:
        own = RunDir(folder / f"small.tune.edit.learning_rate-{value}").read_facts()
        ids = lambda some: [fact.id for fact in some]
        held = own.split("heldout")
        assert ids([*own.forget, *held]) == ids(facts.split("tune"))
        assert set(choice.facts) == {*ids(own.forget), *ids(held)}
        assert not reported & {k.fact.id for k in own.used.known}
    page = (folder / "small/report.md").read_text()
    assert (
        "How settings were chosen" in page and "| top | learning_rate | 1e-05 |" in page
    )


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ("--facts.tune 0", "of which 4 are not set aside"),
        ("--facts.tune 2", "of which 2 are not set aside"),
        ("--dtype bfloat16 --facts.tune 4", "was chosen for another model"),
    ],
)
def test_what_was_chosen_on_facts_that_are_reported_is_not_used(
    small, tuned, tmp_path, capsys, instead, said
):
    shutil.copytree(tuned[0] / "small", tmp_path / "small")
    args = [small[0], "--runs", tmp_path, "--edit.steps", "2", *instead.split()]
    line = refused(capsys, "run", *args)
    assert said in line and "sweep again, or remove chosen.jsonl" in line
    assert main(["facts", *map(str, args)]) == 0  # which are of any settings


def test_what_was_chosen_holds_in_every_draw(tuned, tmp_path):
    run = shutil.copytree(tuned[0] / "small", tmp_path / "small")
    draw = [str(run), *tuned[1][3:], "--facts.seed", "3"]
    assert main(["run", *draw]) == 0
    (choice,), facts = RunDir(run).read_choices(), RunDir(run).read_facts()
    assert {fact.id for fact in facts.split("tune")} == set(choice.facts)


def test_what_was_chosen_is_said_and_nothing_else_may_be_said_of_it(tuned, capsys):
    _, common = tuned
    capsys.readouterr()
    assert main(["edit", *common, "--force"]) == 0
    said = "top: learning_rate = 1e-05, chosen on 4 facts set aside"
    assert said in capsys.readouterr().err
    line = refused(capsys, "run", *common, "--edit.learning-rate", "1e-2")
    assert "which a sweep chose for top" in line and "chosen.jsonl" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--over", "edit.steps", "1", "--choose", "luck"], "expected one of score"),
        (["--over", "facts.seed", "1", "--choose", "score"], "a setting of an edit"),
        (["--over", "edit.x", "1", "--choose", "score"], "setting of GradientEdit"),
        (
            ["--over", "baselines.a.edit.x", "1", "--choose", "score"],
            "BASELINE one of (none)",
        ),
        (["--over", "edit.steps", "1", "--choose", "score"], "--facts.tune 32"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    small, tmp_path, capsys, options, said
):
    assert said in refused(capsys, "sweep", small[0], "--runs", tmp_path, *options)
    assert not list(tmp_path.iterdir())


def test_runs_that_differ_in_seeds_are_one_line(swept, capsys):
    runs = [str(path) for path in swept.iterdir()]
    assert main(["compare", *runs, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    lines = {line["model"]: line for line in tables[0]["rows"]}
    assert len(lines) == 2 and all("and 1 more" in name for name in lines)
    text = [line["text loss"] for name, line in lines.items() if "top" in name]
    assert text[0]["seeds"] == 2 and text[0]["low"] <= text[0]["mean"]


def test_a_run_is_no_second_seed_of_itself(swept, tmp_path, capsys):
    """Neither copied, nor made on another mesh: nothing was drawn anew."""
    runs = sorted(map(str, swept.iterdir()))
    copy = str(shutil.copytree(runs[0], tmp_path / "copy"))
    tables = []
    for more in ([], [copy]):
        assert main(["compare", *more, *runs, "--json"]) == 0
        tables.append(json.loads(capsys.readouterr().out)[0]["rows"])
    values = [[list(line.values())[1:] for line in rows] for rows in tables]
    assert values[0] == values[1]
    assert main(["compare", runs[0], copy]) == 0
    assert f"{copy} is {runs[0]} once more" in capsys.readouterr().err


def test_other_settings_and_values_that_read_alike_have_runs_of_their_own(small):
    run = Run(load(str(small[0])), RunDir(small[1]), Console())
    pairs = [("edit.seed", "0"), ("facts.seed", "0"), ("facts.path", "a/b"),
             ("facts.path", "a-b"), ("facts.path", "a\u2028b")]  # fmt: skip
    made = [_with(run, *pair) for pair in pairs]
    assert len({one.dir.path for one in made}) == len(pairs)
    assert len({one.config.name for one in made}) == len(pairs)


def test_runs_of_other_facts_under_one_path_are_not_seeds_of_one(
    swept, tmp_path, capsys
):
    """The path is the same, and the facts are not there any more."""
    for run in swept.iterdir():
        shutil.copytree(run, tmp_path / run.name)
    other = tmp_path / "small.edit.seed-1" / "stamps" / "inputs"
    config = load(str(tmp_path / "small.edit.seed-1"))
    gone = dataclasses.replace(config.facts, path="gone.jsonl")
    for run in tmp_path.iterdir():
        made = Run(load(str(run)), RunDir(run), Console())
        made.config = dataclasses.replace(made.config, facts=gone)
        made._inputs["file gone.jsonl"] = "one" if run.name.endswith("0") else "other"
        made.stamp("facts")
        scores = [f"scores/{name}" for name in made.config.localizers]
        models = ["evals/unedited", "edits/top", "evals/top"]
        for artefact in (*scores, "selections/top", *models):
            made.stamp(artefact)
    assert other.exists()
    assert main(["compare", *map(str, tmp_path.iterdir()), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)[0]["rows"]
    assert len(lines) == 4 and not any("more" in line["model"] for line in lines)


@pytest.mark.parametrize("stage", ["facts", "edit"])
def test_what_other_settings_made_is_not_reported_beside_the_rest(
    small, tmp_path, capsys, stage
):
    run = shutil.copytree(small[1], tmp_path / "run")
    setting = {"facts": ["--facts.forget", "4"], "edit": ["--edit.steps", "1"]}[stage]
    assert main([stage, str(run), *setting]) == 0
    before = [] if stage == "facts" else ["--edit.steps", "6"]
    assert "with other settings" in refused(capsys, "report", run, *before)


def test_a_comparison_overwrites_nothing_unasked(swept, tmp_path, capsys):
    runs, file = [str(path) for path in swept.iterdir()], tmp_path / "mine.md"
    file.write_text("mine")
    assert "is there" in refused(capsys, "compare", *runs, "--markdown", file)
    assert file.read_text() == "mine"
    assert main(["compare", *runs, "--markdown", str(file), "--force"]) == 0
    assert file.read_text() != "mine"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "--over SETTING"),
        (["--over", "edit.seed"], "different values"),
        (["--over", "edit.seed", "1", "1"], "different values"),
        (["--over", "edit.sed", "1"], "perhaps you meant --edit.seed"),
    ],
)
def test_a_sweep_over_nothing_is_refused(small, tmp_path, capsys, args, said):
    runs = ["--runs", str(tmp_path)]
    assert said in refused(capsys, "sweep", small[0], *runs, *args)
    assert not list(tmp_path.iterdir())


def test_facts_that_another_command_makes_meanwhile_are_noticed(small, tmp_path):
    """What was measured of some is not stamped as measured of the others."""
    path = shutil.copytree(small[1], tmp_path / "run")
    run = Run(load(str(path)), RunDir(path), Console(), force=True)
    todo = run.todo(["evals/top"])
    assert next(todo) == "evals/top"
    assert main(["facts", str(path), "--facts.seed", "5"]) == 0
    with pytest.raises(UserError, match=r"facts in .* anew while evals/top was made"):
        next(todo)


def half(file: Path) -> None:
    """Cuts a file, exactly at a line's end."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


@pytest.mark.parametrize(
    ("file", "artefact"),
    [
        ("facts.jsonl", "facts"),
        ("asked.jsonl", "facts"),
        ("evals/top.jsonl", "evals/top"),
        ("edits/top/history.jsonl", "edits/top"),
        ("edits/top/params", "edits/top"),
    ],
)
def test_what_lost_a_part_is_noticed_and_made_again(
    small, tmp_path, capsys, file, artefact
):
    """Lines cut off, or a bit of a tensor turned over."""
    run = shutil.copytree(small[1], tmp_path / "run")
    if file.endswith("params"):
        path = max(
            (run / file).rglob("*"), key=lambda p: p.is_file() * p.stat().st_size
        )
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        half(run / file)
    changed = f"{artefact} in {run} was changed, or lost a part, since it was made"
    assert changed in refused(capsys, "report", run)
    assert main(["run", str(run)]) == 0
    said = capsys.readouterr().err
    assert f"{artefact}: changed, or lost a part, since it was made; made again" in said
    for one in ("facts.jsonl", "asked.jsonl", "evals/top.jsonl"):
        assert (run / one).read_bytes() == (small[1] / one).read_bytes()
    assert small_run.history(run) == small_run.history(small[1])


def test_an_attack_that_lost_lines_is_left_out(small, tmp_path, capsys):
    run = shutil.copytree(small[1], tmp_path / "run")
    assert main(["attack", str(run), "--attack", "quantize", "--edit", "top"]) == 0
    half(run / "attacks/quantize/top.jsonl")
    assert main(["report", str(run)]) == 0
    said = "attacks/quantize/top: changed since it was made, left out"
    assert said in capsys.readouterr().err


def test_what_is_no_run_is_not_compared(small, tmp_path, capsys):
    assert "no run directory" in refused(capsys, "compare", tmp_path / "none")
    assert "no config.json" in refused(capsys, "compare", tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(small[1] / "config.json", bare)
    assert "mu facts" in refused(capsys, "compare", bare)
    for name in ("facts.jsonl", "asked.jsonl", "stamps/facts"):
        (bare / name).parent.mkdir(exist_ok=True)
        shutil.copy(small[1] / name, bare / name)
    assert "mu evaluate" in refused(capsys, "compare", bare)
