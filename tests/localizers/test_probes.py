"""Probes: the answer, read off the stream by a probe that never saw the subject."""

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.sports import Sports
from mu_jax.facts.tokens import prompts
from mu_jax.localizers import probes
from mu_jax.localizers.probes import Probes, _same_subject
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
    assert rows.shape == (layers + 1, 12) == (layers + 1, len(scores.axes["curves"]))
    assert ((rows >= 0) & (rows <= 1)).all()
    alone = rows[1:, list(scores.axes["curves"]).index("alone")]
    assert alone.tolist() == [scores.values[Site(i, "resid")] for i in range(layers)]


def test_the_notes_hold_a_range_and_its_interval(tiny, scores):
    notes = scores.notes
    assert 0 <= notes["first"] <= notes["last"] < tiny.spec.layers
    assert 0 <= notes["extraction_first"] <= notes["extraction"] <= tiny.spec.layers
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


def test_the_intervals_are_wilsons(scores):
    columns = list(scores.axes["curves"])
    rows, n, z = np.array(scores.tables["curves"]), 40, 1.959964
    for name in ("alone", "subject", "end", "control"):
        p, low, high = (
            rows[:, columns.index(f"{name}{tail}")] for tail in ("", " low", " high")
        )
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        np.testing.assert_allclose(low, middle - reach, rtol=0, atol=1e-6)
        np.testing.assert_allclose(high, middle + reach, rtol=0, atol=1e-6)


def test_the_control_stays_near_chance(tiny, asked, monkeypatch):
    """Also where the stream tells the answer, which every other curve then shows."""
    answers = asked["train"].answer

    def telling(model, prompts, batch, progress):
        draw = np.random.default_rng(0).normal(size=(8, len(answers), 4))
        draw[..., :3] += 50 * (answers[:, None] == np.unique(answers))
        return draw, draw

    monkeypatch.setattr(probes, "residuals", telling)
    scores = Probes(folds=3, penalty=1.0, bootstraps=1)(tiny, asked)
    rows, columns = np.array(scores.tables["curves"]), list(scores.axes["curves"])
    curve = lambda name: rows[:, columns.index(name)]
    assert all(curve(name).min() > 0.95 for name in ("alone", "subject", "end"))
    assert curve("control").max() < scores.notes["chance"] + 0.2


def test_what_was_fitted_before_a_kill_is_not_fitted_again(tiny, asked, scores):
    journal = {}
    assert PROBES(tiny, asked, journal=journal) == scores
    nothing = dict.fromkeys(journal, [0.0] * 40)
    assert set(PROBES(tiny, asked, journal=nothing).values.values()) == {0.0}


NOBODY = np.arange(120)


def test_a_probe_learns_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 5, 9], 40)
    noise = rng.normal(size=(120, 200))  # more features than subjects
    telling = noise.copy()
    telling[:, 0] += 20 * labels
    telling[:, 1] += 20 * (labels == 5)
    assert Probes(penalty=1.0)._correct(noise, labels, NOBODY).mean() < 0.5
    signal = telling[:, :4]
    assert Probes(penalty=1.0)._correct(signal, labels, NOBODY).mean() > 0.95


def test_a_subject_never_stands_on_both_sides_of_a_fold():
    """Features that tell the subject and nothing else: only a twin could help."""
    rng = np.random.default_rng(1)
    subjects = np.repeat(np.arange(60), 2)
    labels = rng.permutation(np.repeat([3, 5, 9], 20))[subjects]
    features = np.eye(60)[subjects] + 0.01 * rng.normal(size=(120, 60))
    probe = Probes(penalty=1.0)
    assert probe._correct(features, labels, NOBODY).mean() > 0.8
    assert probe._correct(features, labels, subjects).mean() < 0.45


def test_rows_that_name_the_same_subject_are_one_group(asked):
    alone = asked["alone"].rows([0, 1, 2, 1, 0, 3])
    groups = _same_subject(alone)
    assert groups[0] == groups[4] and groups[1] == groups[3]
    assert len(set(groups.tolist())) == 4
