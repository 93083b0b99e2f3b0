"""Probes: the answer, read off the stream by a probe that never saw the subject."""

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.sports import Sports
from mu_jax.facts.tokens import prompts
from mu_jax.localizers.probes import Probes
from mu_jax.types import Site

pytestmark = pytest.mark.usefixtures("quick")
PROBES = Probes(folds=3, batch=16, bootstraps=20)


@pytest.fixture(scope="module")
def asked(tiny):
    source = Sports()
    facts = source.load()[:40]
    return {
        "alone": prompts([source.alone(f) for f in facts], tiny.tokenizer),
        "train": prompts([source.templates[0](f) for f in facts], tiny.tokenizer),
    }


@pytest.fixture(scope="module")
def scores(tiny, asked):
    return PROBES(tiny, asked)


def test_a_seed_gives_the_same_scores(tiny, asked, scores):
    assert PROBES(tiny, asked) == scores


def test_every_layer_has_an_accuracy_on_every_curve(tiny, scores):
    layers = tiny.spec.layers
    assert set(scores.values) == {Site(i, "resid") for i in range(layers)}
    rows = np.array(scores.tables["curves"])
    assert rows.shape == (layers + 1, 6) == (layers + 1, len(scores.axes["curves"]))
    assert ((rows >= 0) & (rows <= 1)).all()
    alone = rows[1:, list(scores.axes["curves"]).index("alone")]
    assert alone.tolist() == [scores.values[Site(i, "resid")] for i in range(layers)]


def test_the_notes_hold_a_range_and_its_interval(tiny, scores):
    notes = scores.notes
    assert 0 <= notes["first"] <= notes["last"] < tiny.spec.layers
    assert notes["subjects"] == 40 and 1 / 3 <= notes["chance"] < 1
    for end in ("first", "last"):
        low, high = notes[f"{end}_interval"]
        assert 0 <= low <= high < tiny.spec.layers


def test_too_few_classes_or_subjects_are_refused(tiny, asked):
    for n in (1, 4):
        few = {name: rows.rows(slice(n)) for name, rows in asked.items()}
        with pytest.raises(UserError, match=rf"{n} known subjects in .* class"):
            PROBES(tiny, few)
    answer = asked["train"].answer
    one = np.flatnonzero(answer == answer[0])
    same = {name: rows.rows(one) for name, rows in asked.items()}
    with pytest.raises(UserError, match="in 1 classes"):
        PROBES(tiny, same)


def test_a_probe_learns_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 5, 9], 40)
    noise = rng.normal(size=(120, 200))  # more features than subjects
    telling = noise.copy()
    telling[:, 0] += 20 * labels
    telling[:, 1] += 20 * (labels == 5)
    assert Probes(penalty=1.0)._correct(noise, labels).mean() < 0.5
    signal = telling[:, :4]
    assert Probes(penalty=1.0)._correct(signal, labels).mean() > 0.95
