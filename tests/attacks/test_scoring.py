"""Scoring: which numbers a row holds, and what several askers say together."""

import numpy as np
import pytest
from made_victim import victim

from mu_jax.attacks.scoring import METRICS, Scoring
from mu_jax.evals.recall import answers

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def prey(tiny):
    return victim(tiny)


def values(rows, split, metric, prompt="train"):
    (row,) = (
        r for r in rows if (r.split, r.metric, r.prompt) == (split, metric, prompt)
    )
    return np.array(row.values)


def test_rows_hold_what_each_split_answers_by_itself(prey):
    scoring = Scoring("attack", prey, "budget", prey.scored, {}, batch=16)
    scoring.measure("at", prey.model)
    facts = {
        "forget": prey.scored,
        "never_knew": [prey.twins[f.id] for f in prey.scored],
        "heldout": prey.heldout,
    }
    for template in prey.templates:
        for split, group in facts.items():
            alone = answers(prey.model, group, template, 16)
            for metric in METRICS:
                got = values(scoring.rows(), split, metric, template.name)
                np.testing.assert_allclose(got, alone[metric], atol=2e-6)


def test_values_of_several_askers_are_averaged(prey):
    def asker(seed):
        def ask(prompts, prefix):
            rng = np.random.default_rng([seed, *prompts.tokens.sum(axis=1) % 2**31])
            shape = (len(prompts.tokens), prey.model.spec.vocabulary)
            return rng.standard_normal(shape).astype(np.float32) * 3

        return ask

    def said(*asks):
        scoring = Scoring("attack", prey, "", prey.scored, {})
        scoring.measure("at", prey.model, asks)
        return scoring.rows()

    each = [said(asker(seed)) for seed in (0, 1)]
    both = said(asker(0), asker(1))
    for split in ("forget", "never_knew", "heldout"):
        for metric in METRICS:
            one, two = (values(rows, split, metric) for rows in each)
            mean = values(both, split, metric)
            np.testing.assert_allclose(mean, (one + two) / 2, atol=2e-6)
            assert metric != "p_true" or not np.allclose(one, two, atol=1e-4)
