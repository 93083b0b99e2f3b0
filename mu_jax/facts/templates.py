"""Prompt formats: a fact in, questions out."""

import dataclasses
import re
from typing import Protocol

from mu_jax.errors import UserError
from mu_jax.types import Fact, Question

_SLOT = "{subject}"
_SLOTS = re.compile(r"\{(\w+)\}")


class Format(Protocol):
    """A way to ask for facts; its questions all have equally many options."""

    @property
    def name(self) -> str: ...

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """All that this format asks about `fact`: no, one or several questions."""
        ...


class Single(Format, Protocol):
    """A format that asks one question about any fact, as a training prompt does."""

    def __call__(self, fact: Fact) -> Question: ...


@dataclasses.dataclass(frozen=True)
class Template:
    """A text around one `{subject}` that ends where an answer begins.

    `options` pairs each answer with how this format says it: itself where the format
    asks in words, a letter where it is multiple choice.

        >>> sport = Template("plain", "{subject} plays", ((" golf", " golf"),))
    """

    name: str
    text: str
    options: tuple[tuple[str, str], ...]

    def __post_init__(self):
        if self.text.count(_SLOT) != 1 or self.text != self.text.rstrip():
            raise UserError(
                f"the prompt format {self.name!r}",
                f"exactly one {_SLOT} and no space at the end",
                "answers begin with the space",
            )

    def __call__(self, fact: Fact) -> Question:
        """The question that this format makes of `fact`.

        Raises:
          UserError: a fact without a subject, or an answer that is no option.
        """
        if not fact.subject:
            raise UserError(
                f"the fact {fact.id!r} has no subject",
                f"one, to take the place of {_SLOT}",
                "correct the fact",
            )
        said = dict(self.options)
        for answer in (fact.answer, fact.counterfact):
            if answer not in said:
                raise UserError(
                    f"{fact.subject}: the answer {answer.strip()!r}",
                    f"one of {', '.join(a.strip() for a in said)}",
                    f"the format {self.name!r} offers no other",
                )
        return Question(
            text=self.text.replace(_SLOT, fact.subject),
            subject=fact.subject,
            start=self.text.index(_SLOT),
            answer=said[fact.answer],
            foil=said[fact.counterfact],
            options=tuple(said.values()),
        )

    def questions(self, fact: Fact) -> tuple[Question, ...]:
        """That one question."""
        return (self(fact),)


def fill(wording: str, **said: str) -> tuple[str, dict[str, int]]:
    """A wording with its `{slots}` filled, and where what fills each begins.

    Braces inside of `said` stay as they are.
    """
    text, starts = "", {}
    for i, part in enumerate(_SLOTS.split(wording)):  # every other one names a slot
        if i % 2:
            starts[part] = len(text)
        text += said[part] if i % 2 else part
    return text, starts
