"""What is made of attacks, latent knowledge, masks and benchmarks; pairs; pictures."""

import dataclasses

import numpy as np
import pytest
from made_rows import FACTS, attacked, everything, row

from mu_jax.report import attacks, benchmarks, curves, differences, latent, masks, paper
from mu_jax.report.attacks import Attacked
from mu_jax.report.tables import Table
from mu_jax.statistics import estimate, recovered


@pytest.fixture(scope="module")
def table():
    return Table(everything())


def cell(grid, line: int, title: str):
    return grid.rows[line][grid.header.index(title)]


def test_the_worst_point_is_the_attackers_best(table):
    assert Attacked(table, "relearn", "flu").worst == ("rate=1 step=5",) * 2
    assert Attacked(table, "relearn", "late").peak == "rate=1 step=10"
    assert Attacked(table, "quantize", "late").where == "bits=4"


def test_no_fact_chooses_the_point_that_it_is_reported_at():
    """Of points that differ by chance alone, the best is no better than any other."""
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        rows = attacked("flu", "relearn", ("step=1",), (0.5,), seeds=(0,))
        made = [r for r in rows if r.at != "step=1"]
        made += [
            dataclasses.replace(
                r, at=f"step={k}", values=tuple(rng.uniform(size=FACTS))
            )
            for r in rows
            for k in range(20)
            if r.at == "step=1" and r.split == "forget"
        ]
        one = Attacked(Table(made), "relearn", "flu")
        best = one.values(one.peak).mean()
        found.append((one.at_worst().mean(), best))
    reported, best = np.mean(found, axis=0)
    assert abs(reported - 0.5) < 0.03 and best > 0.65


def test_half_the_facts_are_reported_where_the_other_half_says():
    rows = attacked("flu", "relearn", ("step=1", "step=2"), (0.5, 0.5), seeds=(0,))
    even = np.arange(FACTS) % 2 == 0
    told = {"step=1": np.where(even, 0.9, 0.1), "step=2": np.where(even, 0.2, 0.3)}
    made = [
        dataclasses.replace(r, values=tuple(told.get(r.at, np.array(r.values))))
        for r in rows
    ]
    one = Attacked(Table(made), "relearn", "flu")
    assert one.worst == ("step=2", "step=1") and one.where == "step=2 / step=1"
    np.testing.assert_array_equal(one.at_worst()[0], np.where(even, 0.2, 0.1))
    np.testing.assert_allclose(  # these facts had no part in it: of both points
        one.at_worst("heldout")[0], (told["step=1"] + told["step=2"]) / 2
    )


def test_recovered_is_what_the_never_knew_did_not_learn_too(table):
    found = Attacked(table, "relearn", "flu").recovered()
    assert found.mean == pytest.approx((0.5 - 0.25) / (0.8 - 0.25), abs=0.02)
    assert (found.n, found.seeds) == (8, 2) and found.low < found.mean < found.high


def test_what_is_recovered_is_measured_by_what_the_attack_makes_of_the_unedited():
    ats = ("step=5", "step=9")
    rows = attacked("late", "relearn", ats, (0.3, 0.6))
    unedited = attacked("unedited", "relearn", ats, (0.2, 0.7))
    one = Attacked(Table([*rows, *unedited]), "relearn", "late")
    assert one.where == "step=9"
    np.testing.assert_allclose(one.ceiling.mean(), 0.7)
    assert one.recovered().mean == pytest.approx((0.6 - 0.3) / (0.7 - 0.3), abs=0.02)
    assert [a.model for a in attacks.attacked(one.table)] == ["late"]


def test_the_never_knew_are_those_that_the_attack_learned_from():
    rows = attacked("late", "relearn", ("step=9",), (0.6,))
    twins = [
        dataclasses.replace(r, at=f"{r.at} twins", values=(0.5,) * FACTS)
        for r in rows
        if r.at == "step=9" and r.split == "never_knew"
    ]
    one = Attacked(Table([*rows, *twins]), "relearn", "late")
    assert one.points == ["step=9"]
    np.testing.assert_array_equal(one.at_worst("never_knew"), 0.5)
    assert one.recovered().mean == pytest.approx((0.6 - 0.5) / (0.8 - 0.5), abs=0.02)


def test_a_model_that_an_attack_broke_has_no_worst_point_there():
    rows = attacked("late", "relearn", ("step=5", "step=9"), (0.3, 0.6))
    for i, r in enumerate(rows):
        if r.at == "step=9":
            rows[i] = dataclasses.replace(r, values=(float("nan"),) * FACTS)
    assert Attacked(Table(rows), "relearn", "late").where == "step=5"


def test_seeds_that_score_other_facts_are_pooled_fact_by_fact():
    asked = {0: tuple("abcdefgh"), 1: tuple("efghijkl")}
    rows = [
        dataclasses.replace(r, facts=asked[r.seed])
        for r in attacked("flu", "relearn", ("step=1",), (0.5,))
    ]
    one = Attacked(Table(rows), "relearn", "flu")
    found = one.at_worst()
    assert found.shape == (2, 12) and found.count() == 16
    assert [*found.mask[:, 0], *found.mask[:, 5]] == [False, True, False, False]
    (shown,) = one.worst_estimates()
    assert (shown.n, shown.seeds) == (12, 2) and shown.mean == pytest.approx(0.5)
    assert one.recovered().n == 12


def test_a_model_that_was_not_attacked_is_named_and_has_no_lines(table):
    also = row("spared", "recall", "choice_true", 0.5)
    grid = attacks.every_point(Table([*table.rows, also]), "relearn")
    assert "spared" not in {line[0] for line in grid.rows}
    assert grid.caption.endswith("Not attacked: unedited, spared.")


def test_nothing_is_recovered_of_what_was_never_known():
    same = np.full(8, 0.5)
    assert recovered(same, same, same) is None


def test_no_mean_stands_without_its_interval_and_n(table):
    grids = [
        attacks.worst_cases(table),
        attacks.every_point(table, "relearn"),
        latent.knowledge(table),
        masks.curves(table),
        benchmarks.scores(table),
        paper.metrics(table),
        differences.in_pairs(differences.within(table)),
    ]
    for grid in grids:
        assert grid is not None and grid.rows
        for column, title in enumerate(grid.titles):
            for line, cells in zip(grid.rows, grid.cells, strict=True):
                if isinstance(line[column], str) or not line[column]:
                    continue
                for shown in cells[column]:
                    assert shown.interval.startswith("["), (grid.title, title)
                    assert "n=" in title or "n=" in shown.n, (grid.title, title)


def test_seeds_are_pooled(table):
    grid = attacks.worst_cases(table)
    assert any("n=8 x 2 seeds" in title for title in grid.titles)
    whole = Table([row("m", "text", "loss", 0.5, seed=s) for s in range(3)])
    (what,) = {(r.eval, r.split, r.prompt, r.metric) for r in whole.rows}
    (found,) = whole.estimates("m", attacks.Measure("", *what))
    assert (found.n, found.seeds) == (8, 3)


def test_the_papers_metrics_are_theirs(table):
    grid = paper.metrics(table)
    flu = [line[0] for line in grid.rows].index("flu")
    (error,) = cell(grid, flu, "Forget Error")
    values = next(r for r in table.rows if r.model == "flu").values
    assert error == estimate(1 - np.array(values), share=True)
    assert "Forget Error, top-1" in grid.header


def test_differences_are_marked_where_they_are_sure(table):
    grid = differences.in_pairs(differences.within(table))
    (name,) = {line[0] for line in grid.rows}
    assert name == "flu - late"
    (injected,) = cell(grid, 0, "injected: train")
    assert injected.mean == pytest.approx(0.35, abs=0.02) and injected.low > 0
    assert "*" in grid.cells[0][grid.header.index("injected: train")][0].text


def test_every_curve_is_drawn(table):
    figures = [*curves.attacks(table), *curves.latent(table), *curves.masks(table)]
    assert len(figures) == 3
    (relearned,) = curves.attacks(table)
    assert [a.get_title() for a in relearned.axes] == ["relearn"]
    solid = [x for x in relearned.axes[0].lines if x.get_linestyle() == "-"]
    assert list(solid[0].get_xdata()) == [0, 5, 10]


def test_nothing_measured_makes_no_tables():
    empty = Table([])
    assert attacks.worst_cases(empty) is None and latent.knowledge(empty) is None
    assert not [*curves.attacks(empty), *curves.latent(empty), *curves.masks(empty)]
