"""Few-shot: solved examples, then the fact in the same words."""

import dataclasses

import pytest

from mu_jax.facts import counterfact_formats, sports
from mu_jax.facts.fewshot import FewShot
from mu_jax.types import Fact

ADA = Fact("a", "Ada", "", " one", " two", "Ada has")
BOB = Fact("b", "Bob", "", " two", " one", "Ada is not Bob, who has", rival="Ada")


@pytest.mark.parametrize("wording", ["{prompt}", "So {subject} has"])
def test_the_question_stands_behind_solved_ones_in_the_same_words(wording):
    (question,) = FewShot(wording, (ADA,)).questions(BOB)
    solved, asked = question.text.split("\n")
    say = lambda f: wording.format(prompt=f.prompt, subject=f.subject)
    assert (solved, asked) == (say(ADA) + " one", say(BOB))
    assert question.text[question.start : question.stop] == "Bob"
    assert (question.answer, question.foil) == question.options == (" two", " one")


def test_a_subject_that_is_solved_is_not_asked():
    for name in ("Ada", "ADA"):
        asked = dataclasses.replace(ADA, subject=name)
        assert FewShot("{prompt}", (ADA,)).questions(asked) == ()


@pytest.mark.parametrize("source", [sports, counterfact_formats])
def test_every_shipped_answer_is_shown_once(source):
    (question,) = source.FEWSHOT.questions(BOB)
    *solved, _ = question.text.split("\n")
    assert len(solved) == len(source.SHOTS) == 4
    for line, shot in zip(solved, source.SHOTS, strict=True):
        assert line.endswith(shot.answer)
    assert len({shot.answer for shot in source.SHOTS}) == 4
