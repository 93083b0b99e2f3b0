"""The formats of CounterFact: a fact in its own prompt, near it, and around it."""

import dataclasses
import functools
from collections.abc import Mapping

from mu_jax.facts.choice import LETTERS, Choice, shuffled
from mu_jax.facts.fewshot import FewShot, named, question, worded
from mu_jax.facts.mentions import find, place
from mu_jax.facts.reversed import Reversed
from mu_jax.types import Fact, Question


@dataclasses.dataclass(frozen=True)
class Train:
    """The prompt itself, answered with the truth or with the counterfact."""

    name: str = "train"

    def __call__(self, fact: Fact) -> Question:
        """The question in the fact's own words."""
        return ask(fact, fact.prompt, place(fact))

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        return (self(fact),)


@dataclasses.dataclass(frozen=True)
class Paraphrases:
    """The same question in other words, as published behind unrelated sentences."""

    name: str = "paraphrase"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        return tuple(
            ask(fact, text, find(text, fact.subject)) for text in fact.paraphrases
        )


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The question about other subjects, whose true answer is the same."""

    name: str = "neighbours"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        return tuple(ask(fact, text, None) for text in fact.neighbours)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A choice in words: the four answers, then the prompt."""

    name: str = "listed"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """One question; none of a fact with fewer than two distractors."""
        options = shuffled(fact, self.name)
        if not options:
            return ()
        *first, last = (option.strip() for option in options)
        lead = f"Choose between {', '.join(first)} and {last}. "
        return (ask(fact, fact.prompt, place(fact), lead, options),)


def _solved(
    prompt: str, answer: str, wrong: tuple[str, str, str], subject: str, rival: str
) -> Fact:
    """A solved example, of a kind that no published relation has."""
    return Fact(
        id=f"said/{prompt}",
        subject=subject,
        relation="",
        answer=answer,
        counterfact=wrong[0],
        prompt=prompt,
        distractors=wrong[1:],
        rival=rival,
    )


SHOTS = (
    _solved(
        "The opposite of hot is", " cold", (" dry", " soft", " old"), "hot", "tall"
    ),
    _solved(
        "The young of a cat is called a",
        " kitten",
        (" puppy", " calf", " foal"),
        "cat",
        "dog",
    ),
    _solved(
        "The number of legs of a spider is",
        " eight",
        (" ten", " six", " four"),
        "spider",
        "beetle",
    ),
    _solved(
        "The color of grass is", " green", (" red", " blue", " white"), "grass", "snow"
    ),
)
FEWSHOT = FewShot("{prompt}", SHOTS)
CHOICE = Choice("{prompt} {options} Answer:", SHOTS)
REVERSED = Reversed("What goes with {answer}, {first} or {second}? Answer:", SHOTS)


@dataclasses.dataclass(frozen=True)
class PaperChoice:
    """Multiple choice in the paper's words (method §5), one question a fact.

    The options stand in an order drawn from the fact's id: a model that always says one
    letter scores on about a quarter of the facts. The paper's shots are the first eight
    reserved facts.

    Attributes:
      shots: the solved examples; those without two distractors are left out.
    """

    shots: tuple[Fact, ...] = SHOTS[2:3]
    name: str = "mcq_paper"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """One; none about the subject of a shot, or with fewer than two distractors."""
        if named(fact, self.shots) or not shuffled(fact, self.name):
            return ()
        text, start, letters = self._worded(fact)
        answers = letters[fact.answer], letters[fact.counterfact]
        return (question(fact, self._lead, text, start, *answers, LETTERS),)

    @functools.cached_property
    def _lead(self) -> str:
        asked = (s for s in self.shots if shuffled(s, self.name))
        solved = ((s, *self._worded(s)) for s in asked)
        return "".join(f"{text}{of[s.answer]}\n\n" for s, text, _, of in solved)

    def _worded(self, fact: Fact) -> tuple[str, int | None, Mapping[str, str]]:
        """The text, where the subject begins, and the letter of each option."""
        letters = dict(zip(shuffled(fact, self.name), LETTERS, strict=True))
        lines = (f"{x.strip()}. {option.strip()}" for option, x in letters.items())
        text, start = worded(_PAPER, fact, options="\n".join(lines))
        return text, start, letters


_PAPER = (
    "Help me answer the following multiple choice question:\n\n{prompt} ...\n\n"
    "{options}\n\n"
    "Please respond with the letter of the correct answer, A, B, C, or D. Answer:"
)


def ask(
    fact: Fact,
    prompt: str,
    start: int | None,
    lead: str = "",
    options: tuple[str, ...] = (),
) -> Question:
    """`prompt` behind `lead`; its subject begins at `start`, if it marks one."""
    options = options or (fact.answer, fact.counterfact)
    return question(fact, lead, prompt, start, fact.answer, fact.counterfact, options)
