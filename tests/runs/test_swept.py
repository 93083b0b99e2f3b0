"""What a sweep chose, as it is kept and as it is used."""

import dataclasses
import json

import pytest

from mu_jax.__main__ import main
from mu_jax.commands.sweep import _with
from mu_jax.commands.words import concerns, touched
from mu_jax.console import Console
from mu_jax.edits.gradient import GradientEdit
from mu_jax.errors import UserError
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run
from mu_jax.runs.swept import Choice, check, replaced
from mu_jax.types import Fact


def made(model="flu", setting="steps", value=3) -> Choice:
    tried = {"3": 0.5, "4": 0.25}
    return Choice(model, setting, value, "score", ("a", "b"), "w", tried)


def test_a_choice_is_read_as_it_was_kept_and_the_last_one_counts(tmp_path):
    run = RunDir(tmp_path / "run")
    assert run.read_choices() == ()
    run.add_choices([made(), made("late", "learning_rate", 1e-3)])
    run.add_choices([made(value=4)])
    assert run.read_choices() == (made(value=4), made("late", "learning_rate", 1e-3))


@pytest.mark.parametrize(
    "change",
    [
        {"tried": [1]},
        {"facts": 8},
        {"weights": 8},
        {"model": 3},
        {"value": []},
        {"value": None},
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, change):
    run = RunDir(tmp_path)
    run.add_choices([made()])
    record = json.loads((tmp_path / "chosen.jsonl").read_text())
    (tmp_path / "chosen.jsonl").write_text(json.dumps(record | change) + "\n")
    with pytest.raises(UserError, match=r"chosen.jsonl, line 1"):
        run.read_choices()


def test_a_choice_is_used_where_its_facts_are_set_aside_and_its_model_is():
    fact = lambda id: Fact(id, id, "P", " x", " y", "")
    check([made()], [fact(id) for id in "abc"], "w")
    check([], [], "v")
    with pytest.raises(UserError, match=r"on 2 facts, of which 1 are .* \(one: b\)"):
        check([made()], [fact("a")], "w")
    with pytest.raises(UserError, match="for another model"):
        check([made()], [fact(id) for id in "ab"], "v")


def test_a_setting_is_set_where_it_lies():
    edit = replaced(GradientEdit(), "loss.weight", 0.5)
    assert edit.loss.weight == 0.5 and GradientEdit().loss.weight != 0.5
    assert replaced(edit, "steps", 3).steps == 3
    for wrong in ("loss.wait", "rank"):
        with pytest.raises(UserError, match="expected one of"):
            replaced(edit, wrong, 1)


def test_which_setting_is_of_which_edits():
    config = load("configs/gemma3_270m_robustness.py")
    of = lambda written: touched(config, written)
    assert of("edit.learning-rate") == (["flu", "late", "random"], "learning_rate")
    assert of("baselines.simnpo.edit.loss.beta") == (["simnpo"], "loss.beta")
    for other in (
        "facts.seed",
        "baselines.rmu.selection",
        "baselines.x.edit.y",
        "edit",
    ):
        assert of(other)[0] == []


def test_a_choice_is_of_one_model_and_of_no_other():
    config = load("configs/gemma3_270m_robustness.py")
    own, other = made("flu"), made("rmu")
    assert concerns(config, "edit.steps", own) and not concerns(
        config, "edit.steps", other
    )
    assert concerns(config, "baselines.rmu.edit.steps", other)
    assert not concerns(config, "baselines.rmu.edit.steps", own)
    assert not concerns(config, "edit.seed", own)


def test_sweeping_a_setting_of_one_model_leaves_what_was_chosen_for_others(tmp_path):
    config = load("configs/gemma3_270m_robustness.py")
    chosen = (made("flu", "steps"), made("rmu", "steps"), made("rmu", "seed"))
    config = dataclasses.replace(config, chosen=chosen)
    run = Run(config, RunDir(tmp_path / "run"), Console())
    left = lambda setting: _with(run, setting, "5").config.chosen
    assert left("baselines.rmu.edit.steps") == (chosen[0], chosen[2])
    assert left("edit.steps") == chosen[1:]
    assert left("facts.seed") == chosen


@pytest.mark.parametrize("spelt", ["baselines.rmu.edit.steps", "edit.learning-rate"])
def test_a_command_may_not_say_what_was_chosen(tmp_path, capsys, spelt):
    run = RunDir(tmp_path / "gemma3_270m_robustness")
    run.add_choices([made("rmu"), made("flu", "learning_rate", 1e-3)])
    config = "configs/gemma3_270m_robustness.py"
    assert main(["run", config, "--runs", str(tmp_path), f"--{spelt}", "9"]) == 2
    assert f"--{spelt}, which a sweep chose for" in capsys.readouterr().err
