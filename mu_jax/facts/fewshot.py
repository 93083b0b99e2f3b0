"""Few-shot formats: the question behind others of its kind that are solved.

A wording has one slot: `{prompt}` for the fact's own prompt, or `{subject}`. The solved
examples (shots) are facts that nothing is trained or evaluated on; a fact about the
subject of one of them is not asked, since its answer stands in the text.
"""

import dataclasses
import functools
from collections.abc import Sequence

from mu_jax.facts.groups import alike
from mu_jax.facts.mentions import place
from mu_jax.facts.templates import fill
from mu_jax.types import Fact, Question


@dataclasses.dataclass(frozen=True)
class FewShot:
    """The prompt behind solved ones, a line each (in-context learning).

        Fact: Reggie Jackson plays the sport of baseball
        Fact: Michael Jordan plays the sport of              -> basketball

    Attributes:
      options: what can be answered; by default a fact's two answers.
    """

    wording: str
    shots: tuple[Fact, ...]
    options: tuple[str, ...] = ()
    name: str = "fewshot"

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """One question; none about the subject of a shot."""
        if named(fact, self.shots):
            return ()
        text, start = worded(self.wording, fact)
        options = self.options or (fact.answer, fact.counterfact)
        answers = fact.answer, fact.counterfact
        return (question(fact, self._lead, text, start, *answers, options),)

    @functools.cached_property
    def _lead(self) -> str:
        return "".join(
            f"{worded(self.wording, shot)[0]}{shot.answer}\n" for shot in self.shots
        )


def named(fact: Fact, shots: Sequence[Fact]) -> bool:
    """Whether one of the shots is about the subject of `fact`."""
    return alike(fact.subject) in {alike(shot.subject) for shot in shots}


def worded(wording: str, fact: Fact, **more: str) -> tuple[str, int | None]:
    """The wording about `fact`, and where the subject begins; None if it does not."""
    text, starts = fill(wording, prompt=fact.prompt, subject=fact.subject, **more)
    if "subject" in starts:
        return text, starts["subject"]
    inside = place(fact)
    return text, None if inside is None else starts["prompt"] + inside


def question(
    fact: Fact,
    lead: str,
    text: str,
    start: int | None,
    answer: str,
    foil: str,
    options: tuple[str, ...],
) -> Question:
    """`text` behind `lead`; no subject is marked where `start`, in `text`, is None."""
    return Question(
        text=lead + text,
        subject="" if start is None else fact.subject,
        start=0 if start is None else len(lead) + start,
        answer=answer,
        foil=foil,
        options=options,
    )
