"""Prompt formats: a fact in, a question out."""

import dataclasses

from mu_jax.errors import UserError
from mu_jax.types import Fact, Question

_SLOT = "{subject}"


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
        """The question that this format makes of `fact`."""
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
