"""Values of several runs as those of one."""

import dataclasses

import numpy as np
from report.made_rows import attacked, recalled

from mu_jax.attacks.relearn import Relearn
from mu_jax.commands.compare import compare, pooled
from mu_jax.console import Console
from mu_jax.edits.gradient import GradientEdit
from mu_jax.report.attacks import METRIC, Attacked
from mu_jax.report.tables import Measure, Table
from mu_jax.runs.config import Baseline, Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.run import Run
from mu_jax.selectors import Layers
from mu_jax.statistics import estimate
from mu_jax.types import Fact, Facts, Known, Row


def row(values, seed, split="forget", name="recall") -> Row:
    where = {"eval": name, "split": split, "prompt": "train", "metric": "p_true"}
    return Row.of(np.array(values), share=True, model="flu", seed=seed, **where)


def of(rows, split="forget", name="recall"):
    (found,) = Table(rows).values("flu", Measure("", name, split, "train", "p_true"))
    return found


def test_draws_of_facts_are_clusters_and_seeds_of_one_draw_are_paired():
    told = {0: [0.1, 0.2, 0.3], 1000: [0.2, 0.3, 0.4], 2000: [0.7, 0.8]}
    draws = {0: 0, 1000: 0, 2000: 1}
    rows = [r for seed, v in told.items() for r in pooled([row(v, seed)], draws[seed])]
    found = of(rows)
    assert found.shape == (3, 5)
    np.testing.assert_array_equal(found.mask.sum(axis=1), [2, 2, 3])
    np.testing.assert_array_equal(found[:2, :3], [told[0], told[1000]])
    shown = estimate(found, share=True)
    assert (shown.seeds, shown.n) == (3, 5)
    assert shown.low < 0.3 and shown.high > 0.7  # another set may be as far off again


def test_text_is_the_same_for_every_draw():
    rows = [
        r
        for seed, draw in ((0, 0), (1000, 1))
        for r in pooled([row([0.1, 0.3], seed, "heldout", "text")], draw)
    ]
    assert of(rows, "heldout", "text").shape == (2, 2)


def test_facts_that_a_seed_draws_keep_their_names():
    """Of an attack, whose seed says which half it scores."""
    rows = [
        dataclasses.replace(row([0.1, 0.3], seed), facts=facts)
        for seed, facts in ((0, ("a", "b")), (1, ("b", "c")))
    ]
    assert of(list(pooled(rows, 0))).shape == (2, 3)
    assert [r.facts for r in pooled(rows, 3)] == [("3/a", "3/b"), ("3/b", "3/c")]


def made(path, seed: int):
    """A run of the models flu and late, of which the latter has this seed."""
    late = Baseline("flu", GradientEdit(seed=seed))
    config = Config(
        path.name,
        model="tiny",
        selections={"flu": Layers(mlp=(1,))},
        baselines={"late": late},
        attacks={"relearn": Relearn()},
    )
    run = Run(config, RunDir(path), Console())
    run.dir.write_json("config.json", run.provenance)
    fact = Fact("a", "a", "P", " x", " y", "")
    run.dir.write_facts(Facts((Known(fact, "forget", 0.9),)))
    run.dir.write_asked([])
    models = ("unedited", "flu", "late")
    measured = {f"evals/{model}": recalled(model, 0.5, 0.5) for model in models}
    ceiling = attacked("unedited", "relearn", ["step=5"], [0.9], seeds=[0])
    measured["attacks/relearn/unedited"] = ceiling
    for artefact, rows in measured.items():
        run.dir.write_rows(artefact, rows)
    for artefact in ("facts", *measured):
        run.dir.stamp(artefact, run.fingerprint(artefact))
    return path


def test_what_a_seed_does_not_touch_is_one_sample_and_the_ceiling_is_kept(
    tmp_path, capsys
):
    """The model flu is the same in the runs a and b, late in none; c is a copied."""
    a, b, c = (made(tmp_path / name, i) for name, i in (("a", 0), ("b", 1), ("c", 0)))
    grid, *_ = compare([a, b, c], Console())
    name, _, _, recall, *_, relearned = zip(*grid.rows, strict=True)
    assert name == tuple(f"a and 1 more: {m}" for m in ("unedited", "flu", "late"))
    seeds = lambda column: [cell[0].seeds if cell else 0 for cell in column]
    assert seeds(recall) == [1, 1, 2]
    assert seeds(relearned) == [2, 0, 0]
    assert f"{c} is {a} once more" in capsys.readouterr().err


def test_a_model_is_measured_by_the_ceiling_of_its_own_runs():
    """Of three runs whose ceilings are .9, .5 and .5, flu was made anew in one."""
    at = lambda model, seed, value, where: dataclasses.replace(
        row([value, value + 0.01, value + 0.02], seed, name="relearn"),
        model=model,
        metric=METRIC,
        at=where,
    )
    rows = [at("flu", 0, 0.3, "5 steps")]
    rows += [
        at("unedited", seed, value, "5 steps")
        for seed, value in ((0, 0.9), (1000, 0.5), (2000, 0.5))
    ]
    one = Attacked(Table(rows), "relearn", "flu")
    np.testing.assert_allclose(one.ceiling, [[0.9, 0.91, 0.92]])
