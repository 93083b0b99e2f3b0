"""Multiple choice by letter, in which a liking for a letter scores nothing.

A small model may say "B" to everything. So each fact is asked four times, its options
moved on by one each time; a constant letter is right exactly once, and scores 1/4 on
every fact. Evaluations average over a fact's questions.
"""

import dataclasses
import functools
import random

from mu_jax.facts.fewshot import named, question, worded
from mu_jax.types import Fact, Question

LETTERS = (" A", " B", " C", " D")
_SOLVED_AT = (2, 0, 3, 1)  # the letters of the shots' answers, in turn


@dataclasses.dataclass(frozen=True)
class Choice:
    """Four questions a fact: every option once at every letter, behind solved examples.

        Question: A. golf B. baseball ... What sport does Pat Tillman play? Answer: C
        Question: A. baseball B. ... What sport does Michael Jordan play? Answer:

    Where all facts have the same options, those stand before the subject: what is
    common to the questions of a turn is then computed once.

    The answer is the letter of the true option, the foil that of the injected one.

    Attributes:
      wording: as in `fewshot`, with a second slot `{options}`.
      shots: solved examples, each at another letter than the one before.
      options: what can be answered, four, in the order of the first question; by
        default a fact's two answers and its first two distractors, shuffled.
    """

    wording: str
    shots: tuple[Fact, ...]
    options: tuple[str, ...] = ()
    name: str = "mcq"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """Four; none about the subject of a shot, or with fewer than four options."""
        options = self.options or shuffled(fact, self.name)
        if not options or named(fact, self.shots):
            return ()
        return tuple(self._ask(fact, _turned(options, by)) for by in range(4))

    def _ask(self, fact: Fact, options: tuple[str, ...]) -> Question:
        letters = dict(zip(options, LETTERS, strict=True))
        text, start = self._worded(fact, options)
        answers = letters[fact.answer], letters[fact.counterfact]
        return question(fact, self._lead, text, start, *answers, LETTERS)

    def _worded(self, fact: Fact, options: tuple[str, ...]) -> tuple[str, int | None]:
        listed = (f"{x}. {o.strip()}" for x, o in zip(LETTERS, options, strict=True))
        return worded(self.wording, fact, options="".join(listed).strip())

    @functools.cached_property
    def _lead(self) -> str:
        lines = []
        for i, shot in enumerate(self.shots):
            options, at = self.options or shuffled(shot, self.name), _SOLVED_AT[i % 4]
            turned = _turned(options, options.index(shot.answer) - at)
            lines.append(f"{self._worded(shot, turned)[0]}{LETTERS[at]}\n")
        return "".join(lines)


def shuffled(fact: Fact, salt: str) -> tuple[str, ...]:
    """Both answers and two distractors, in an order drawn from the fact's id.

    Empty where those are fewer than four.
    """
    options = (fact.answer, fact.counterfact, *fact.distractors[:2])
    if len(options) < len(LETTERS):
        return ()
    return tuple(random.Random(f"{salt}/{fact.id}").sample(options, len(options)))


def _turned(options: tuple[str, ...], by: int) -> tuple[str, ...]:
    """The options moved to the left, round the end."""
    return options[by % 4 :] + options[: by % 4]
