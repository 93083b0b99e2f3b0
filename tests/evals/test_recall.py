"""Recall: probabilities and choices of the true and the injected answer."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from mu_jax.evals.recall import Recall, _together, answers, askable, rows
from mu_jax.facts import sports
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.counterfact_formats import CHOICE, REVERSED, PaperChoice
from mu_jax.facts.sports import Sports
from mu_jax.facts.templates import Template
from mu_jax.facts.tokens import prompts
from mu_jax.types import Fact, Facts, Known

pytestmark = pytest.mark.usefixtures("quick")
METRICS = {
    f"{kind}_{which}"
    for kind in ("p", "choice_p", "choice", "top")
    for which in ("true", "injected")
}


@pytest.fixture(scope="module")
def found():
    source = Sports(forget=6)
    return source.split([(f, 1.0) for f in source.load()[:20]])


@pytest.fixture(scope="module")
def measured(tiny, found):
    return Recall(batch=8, limit=7)(tiny, found, Sports().templates[:1])


def test_every_split_is_measured_up_to_the_limit(measured, found):
    assert measured.keys() == {("train", split) for split in found.splits}
    for (_, split), metrics in measured.items():
        assert metrics.keys() == METRICS
        n = min(7, len(found.split(split)))
        assert all(values.shape == (n,) for values in metrics.values())


def test_every_metric_is_a_share(measured):
    for metrics in measured.values():
        for values in metrics.values():
            assert ((values >= 0) & (values <= 1)).all()
        for name in ("choice_p", "choice", "top", "p"):
            both = metrics[f"{name}_true"] + metrics[f"{name}_injected"]
            assert (both <= 1 + 1e-6).all()
        for which in ("true", "injected"):
            assert (metrics[f"p_{which}"] <= metrics[f"choice_p_{which}"]).all()


def test_the_metrics_are_a_softmax_by_hand(tiny, found):
    template = Sports().templates[0]
    values = answers(tiny, found.forget, template, 4)
    asked = prompts([template(f) for f in found.forget], tiny.tokenizer)
    logits = np.asarray(tiny.run(asked).logits, np.float64)
    for i, row in enumerate(logits):
        p = np.exp(row) / np.exp(row).sum()
        options = asked.options[i]
        best = options[np.argmax(row[options])]
        for which, token in (("true", asked.answer[i]), ("injected", asked.foil[i])):
            got = {name: values[f"{name}_{which}"][i] for name in ("p", "choice_p")}
            assert got["p"] == pytest.approx(p[token], rel=1e-4)
            share = p[token] / p[options].sum()
            assert got["choice_p"] == pytest.approx(share, rel=1e-4)
            assert values[f"choice_{which}"][i] == (best == token)
            assert values[f"top_{which}"][i] == (row.argmax() == token)


def test_the_batch_size_changes_no_metric(tiny, found):
    template = Sports().templates[0]
    one, two = (answers(tiny, found.forget, template, n) for n in (4, 6))
    for metric in METRICS:
        np.testing.assert_allclose(one[metric], two[metric], rtol=1e-5)


# ---- formats that ask several questions, or none


def made(i: int, *, paraphrases: int = 2, distractors=(" fig", " plum")) -> Fact:
    return Fact(
        id=str(i),
        subject=f"Subject {i}",
        relation="",
        answer=" apple",
        counterfact=" pear",
        prompt=f"The fruit of Subject {i} is the",
        paraphrases=tuple(f"In {n} words, Subject {i} is" for n in range(paraphrases)),
        neighbours=(f"The fruit of {i} others is the",),
        distractors=distractors,
    )


def test_several_questions_of_a_fact_are_averaged(tiny):
    paraphrase = CounterFact().templates[1]
    facts = [made(0), made(1, paraphrases=0), made(2, paraphrases=3), made(3)]
    values = answers(tiny, facts, paraphrase, 3)
    asked = askable(facts, paraphrase)
    assert asked == [facts[0], facts[2], facts[3]]
    single = [
        answers(tiny, [dataclasses.replace(fact, paraphrases=(text,))], paraphrase, 1)
        for fact in asked
        for text in fact.paraphrases
    ]
    for metric in METRICS:
        each = [values_of_one[metric][0] for values_of_one in single]
        means = [np.mean(each[:2]), np.mean(each[2:5]), np.mean(each[5:])]
        np.testing.assert_allclose(values[metric], means, rtol=1e-4)


def test_questions_that_share_more_are_asked_together(tiny, found):
    """All of a fact's questions at once, and one by one, give the same."""
    facts, format = found.forget[:3], sports.CHOICE
    asked = [q for fact in facts for q in format.questions(fact)]
    rows = prompts(asked, tiny.tokenizer)
    groups = _together(rows, np.tile(np.arange(4), 3))
    assert [g.tolist() for g in groups] == [[i, i + 4, i + 8] for i in range(4)]
    values = answers(tiny, facts, format, 3)
    logits = np.asarray(tiny.run(rows).logits, np.float64)
    for which, tokens in (("true", rows.answer), ("injected", rows.foil)):
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        by_hand = np.take_along_axis(p, tokens[:, None], axis=1).reshape(3, 4)
        np.testing.assert_allclose(
            values[f"p_{which}"], by_hand.mean(axis=1), rtol=1e-4
        )


def test_questions_that_share_no_more_are_not_split(tiny):
    asked = [q for i in range(3) for q in CHOICE.questions(made(i))]
    rows = prompts(asked, tiny.tokenizer)
    (group,) = _together(rows, np.tile(np.arange(4), 3))
    assert group.tolist() == list(range(12))


def test_facts_of_which_a_format_asks_nothing_are_left_out(tiny):
    facts = [made(i, distractors=() if i % 2 else (" fig", " plum")) for i in range(9)]
    splits = {"forget": facts[:1], "retain": facts[1:2], "heldout": facts[2:5]}
    splits["reserved"] = facts[5:]
    known = [Known(f, split, 1.0) for split, m in splits.items() for f in m]
    formats = {f.name: f for f in CounterFact().templates}
    train, neighbours, mcq = (formats[n] for n in ("train", "neighbours", "mcq"))
    recall = Recall(batch=4)
    measured = recall(tiny, Facts(tuple(known)), (train, neighbours, mcq))
    counts = {where: len(metrics["p_true"]) for where, metrics in measured.items()}
    assert counts == {
        ("train", "forget"): 1,
        ("train", "retain"): 1,
        ("train", "heldout"): 3,
        ("neighbours", "forget"): 1,
        ("neighbours", "retain"): 1,
        ("neighbours", "heldout"): 3,
        ("mcq", "forget"): 1,  # and none of the fact to retain
        ("mcq", "heldout"): 2,
    }
    notes = recall.notes(measured, Facts(tuple(known)), (train, neighbours, mcq))
    assert set(notes) <= {"train", "neighbours", "mcq"}
    assert rows("tiny", measured, notes)


def test_a_format_that_asks_nothing_is_not_informative(tiny):
    facts = Facts((Known(made(0, distractors=()), "forget", 1.0),))
    assert answers(tiny, facts.forget, CHOICE, 4) == {}
    assert Recall()(tiny, facts, [CHOICE]) == {}
    assert Recall().notes({}, facts, [CHOICE]) == {
        "mcq": "not informative: it asks about none of the facts"
    }


def test_chance_is_the_share_of_the_commonest_right_letter():
    """All facts have the same answer; their letters differ, and those are asked."""
    facts = [made(i) for i in range(40)]
    known = Facts(tuple(Known(f, "forget", 1.0) for f in facts))
    train, paper = CounterFact().templates[0], PaperChoice()
    letters = [paper.questions(f)[0].answer for f in facts]
    share = max(Counter(letters).values()) / 40
    most = {"choice_true": np.array([1.0] * 36 + [0.0] * 4)}
    notes = Recall(limit=40).notes(
        {("train", "forget"): most, ("mcq_paper", "forget"): most},
        known,
        (train, paper),
    )
    assert notes.keys() == {"train"}  # where all answers are " apple"
    worse = {"choice_true": np.array(letters) == max(letters, key=letters.count)}
    found = Recall(limit=40).notes({("mcq_paper", "forget"): worse}, known, [paper])
    assert f"a constant answer {share:.2f}" in found["mcq_paper"]


@pytest.mark.parametrize(("format", "chance"), [(CHOICE, 1 / 4), (REVERSED, 1 / 2)])
def test_what_is_asked_from_all_sides_has_the_chance_of_its_options(format, chance):
    """However alike the facts: a letter, a place or a word is right equally often."""
    facts = [dataclasses.replace(made(i), rival=f"Other {i}") for i in range(24)]
    known = Facts(tuple(Known(f, "forget", 1.0) for f in facts))
    constant = {"choice_true": np.full(24, chance)}
    found = Recall().notes({(format.name, "forget"): constant}, known, [format])
    said = f"answers {chance:.2f} right, a constant answer {chance:.2f}"
    assert said in found[format.name]
    margin = 1.64 * np.sqrt(chance * (1 - chance) / 24)
    better = {"choice_true": np.full(24, chance + 1.01 * margin)}
    assert Recall().notes({(format.name, "forget"): better}, known, [format]) == {}


WORDS = ((" golf", " golf"), (" chess", " chess"))


def unedited(right: list[int], answers: list[str]):
    facts = [Fact(str(i), str(i), "", a, " chess", "") for i, a in enumerate(answers)]
    known = Facts(tuple(Known(f, "forget", 1.0) for f in facts))
    template = Template("plain", "{subject} plays", WORDS)
    values = {("plain", "forget"): {"choice_true": np.array(right, float)}}
    return Recall().notes(values, known, [template])


def test_formats_answered_no_better_than_by_a_constant_are_noted():
    half = [" golf", " chess"] * 10
    assert unedited([1] * 20, half) == {}
    assert unedited([1] * 10 + [0] * 10, half).keys() == {"plain"}
    assert unedited([0] * 20, half).keys() == {"plain"}
    # 18 of 20 right is nothing where 18 of 20 answers are the same.
    assert unedited([1] * 18 + [0] * 2, [" golf"] * 18 + [" chess"] * 2)
    said = unedited([1] * 10 + [0] * 10, half)["plain"]
    assert "answers 0.50 right, a constant answer 0.50" in said


def test_rows_carry_mean_error_and_count(measured):
    made = rows("mine", measured, {"train": "why"})
    assert len(made) == len(measured) * len(METRICS)
    for row in made:
        values = measured[row.prompt, row.split][row.metric]
        assert (row.model, row.eval, row.note, row.n) == (
            "mine",
            "recall",
            "why",
            len(values),
        )
        assert row.mean == pytest.approx(values.mean())
        assert row.values == pytest.approx(values, abs=1e-6)
        assert row.low <= row.mean <= row.high
        assert dataclasses.asdict(row).keys() >= {"metric", "split", "prompt"}
