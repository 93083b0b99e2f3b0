"""Values of several runs as those of one."""

import dataclasses

import numpy as np

from mu_jax.compare import pooled
from mu_jax.report.tables import Measure, Table
from mu_jax.statistics import estimate
from mu_jax.types import Row


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
