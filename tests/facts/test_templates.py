"""Prompt formats."""

import pytest

from mu_jax.errors import UserError
from mu_jax.facts.sports import MCQ_PAPER, Sports
from mu_jax.facts.templates import Template, fill
from mu_jax.types import Fact

WORDS = ((" golf", " golf"), (" chess", " chess"))
FACT = Fact("x", "Tiger Woods", "plays", " golf", " chess", "")


@pytest.mark.parametrize(
    "text", ["no slot", "{subject} and {subject}", "{subject} plays ", "{subject}\n"]
)
def test_a_format_has_one_slot_and_ends_without_a_space(text):
    with pytest.raises(UserError, match=r"exactly one {subject} and no space"):
        Template("bad", text, WORDS)


def test_the_question_holds_the_subject_at_its_span():
    question = Template("plain", "Fact: {subject} plays", WORDS)(FACT)
    assert question.text == "Fact: Tiger Woods plays"
    assert question.text[question.start : question.stop] == "Tiger Woods"
    assert (question.answer, question.foil) == (" golf", " chess")


@pytest.mark.parametrize(
    "template",
    [f for f in (*Sports().templates, MCQ_PAPER) if isinstance(f, Template)],
    ids=lambda t: t.name,
)
def test_a_subject_named_earlier_in_the_format_is_not_mistaken(template):
    fact = Fact("x", "Tiger Woods", "plays", " golf", " football", "")
    question = template(fact)
    assert question.text[question.start : question.stop] == "Tiger Woods"
    assert question.start == template.text.index("{subject}")


def test_the_papers_multiple_choice_says_a_letter():
    question = MCQ_PAPER(Fact("x", "Pele", "plays", " football", " golf", ""))
    assert (question.answer, question.foil) == (" A", " D")
    assert question.options == (" A", " B", " C", " D")


def test_an_answer_that_is_no_option_is_refused():
    fact = Fact("x", "Magnus", "plays", " tennis", " chess", "")
    with pytest.raises(UserError, match=r"Magnus: the answer 'tennis'.*golf, chess"):
        Template("plain", "{subject} plays", WORDS)(fact)


def test_braces_in_a_subject_stay_as_they_are():
    fact = Fact("x", "{subject} {0}", "plays", " golf", " chess", "")
    question = Template("plain", "Fact: {subject} plays", WORDS)(fact)
    assert question.text == "Fact: {subject} {0} plays"


def test_every_slot_is_filled_once_and_found():
    text, starts = fill("{a} or {b}, {a}?", a="{b}", b="x{c}")
    assert text == "{b} or x{c}, {b}?"
    assert starts == {"a": 13, "b": 7}


def test_a_template_asks_one_question_of_every_fact():
    template = Template("plain", "Fact: {subject} plays", WORDS)
    assert template.questions(FACT) == (template(FACT),)


def test_a_fact_without_a_subject_is_refused():
    fact = Fact("x", "", "plays", " golf", " chess", "")
    with pytest.raises(UserError, match="the fact 'x' has no subject"):
        Template("plain", "Fact: {subject} plays", WORDS)(fact)
