"""The fact from its answer's side: of two subjects, which one is it true of?

    Question: Who plays basketball, Michael Jordan or Babe Ruth? Answer: Michael Jordan
    Question: Who plays basketball, Babe Ruth or Michael Jordan? Answer: Michael Jordan

Babe Ruth is the rival: an athlete of the sport that the edit injects for Jordan. Both
orders are asked, so that one who always says the first scores 1/2 on every fact.
"""

import dataclasses
import functools
import random
from collections.abc import Sequence

from mu_jax.facts.fewshot import question
from mu_jax.facts.groups import alike
from mu_jax.facts.mentions import place, renamed
from mu_jax.facts.templates import fill
from mu_jax.types import Fact, Question

BLANK = "___"


@dataclasses.dataclass(frozen=True)
class Reversed:
    """A choice between the subject and its rival, by the true answer; in both orders.

    `true` is the subject and `injected` the rival: p_true towards 1 means that the fact
    is still known from this side, and p_injected that its rival is taken for it.
    Chance is 1/2 of both, and where an edit that removed the fact leaves them; more
    than 1/2 of `injected` is no better, since the injected fact is not asked for.

    Attributes:
      wording: with the slots `{answer}`, `{first}` and `{second}`, and where wanted
        `{blank}`: the prompt with a blank in place of the subject.
      shots: solved examples with rivals, in one order and in the other by turns.
    """

    wording: str
    shots: tuple[Fact, ...]
    name: str = "reversed"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """Two; none where the fact has no rival, or a shot names one of both."""
        solved = {alike(n) for shot in self.shots for n in (shot.subject, shot.rival)}
        if not fact.rival or solved & {alike(fact.subject), alike(fact.rival)}:
            return ()
        options = f" {fact.subject}", f" {fact.rival}"
        return tuple(
            question(fact, self._lead, *self._worded(fact, first), *options, options)
            for first in (True, False)
        )

    def _worded(self, fact: Fact, subject_first: bool) -> tuple[str, int]:
        """The text, and where the subject begins."""
        both = (fact.subject, fact.rival)
        first, second = both if subject_first else both[::-1]
        text, starts = fill(
            self.wording,
            blank=_blank(fact),
            answer=fact.answer.strip(),
            first=first,
            second=second,
        )
        return text, starts["first" if subject_first else "second"]

    @functools.cached_property
    def _lead(self) -> str:
        texts = (self._worded(shot, i % 2 == 1)[0] for i, shot in enumerate(self.shots))
        solved = (f" {shot.subject}\n" for shot in self.shots)
        return "".join(a + b for a, b in zip(texts, solved, strict=True))


def with_rivals(
    facts: Sequence[Fact], seed: int, others: Sequence[Fact] = ()
) -> tuple[Fact, ...]:
    """Each fact with a rival drawn from the subjects of its relation.

    Of those the counterfact is true, or where there are none any answer but the fact's
    own. A rival's name begins with another letter than the subject's, because answers
    are judged by their first token. What is drawn depends on the fact and on which
    subjects there are, not on their order; `others` are more of them.
    """
    by_answer: dict[str, dict[str, set[str]]] = {}
    true_of: dict[tuple[str, str], set[str]] = {}
    for fact in (*facts, *others):
        answers = by_answer.setdefault(fact.relation, {})
        answers.setdefault(fact.answer, set()).add(fact.subject)
        name = fact.relation, alike(fact.subject)
        true_of.setdefault(name, set()).add(fact.answer)
    out = []
    for fact in facts:
        answers = by_answer[fact.relation]
        fits = lambda name, fact=fact: (
            fact.answer not in true_of[fact.relation, alike(name)]
            and initial(name) not in ("", initial(fact.subject))
            and alike(name) != alike(fact.subject)
        )
        best = sorted(filter(fits, answers.get(fact.counterfact, ())))
        best = best or sorted(
            {s for names in answers.values() for s in names if fits(s)}
        )
        drawn = random.Random(f"{seed}/rival/{fact.id}").choice(best) if best else ""
        out.append(dataclasses.replace(fact, rival=drawn))
    return tuple(out)


def initial(name: str) -> str:
    """The first letter, in small; empty where the name begins with something else."""
    return name[0].casefold() if name[:1].isalpha() else ""


def _blank(fact: Fact) -> str:
    return fact.prompt if place(fact) is None else renamed(fact, BLANK).prompt
