"""What a source of facts is: the protocol, for those of one's own too."""

from typing import Protocol, runtime_checkable

from mu_jax.facts.templates import Format, Single
from mu_jax.types import Fact, Facts, Question


@runtime_checkable
class FactSource(Protocol):
    """Facts, the prompts that ask for them, and their splits.

    Attributes:
      path: the file they are from, which stamps look at; None for none.
      tune: how many are set aside to choose settings on.
      tuning: whether those are forgotten, in place of the ones to report.
      templates: the training prompt, then the formats that only evaluations see.
    """

    @property
    def path(self) -> str | None: ...

    @property
    def tune(self) -> int: ...

    @property
    def tuning(self) -> bool: ...

    @property
    def templates(self) -> tuple[Single, *tuple[Format, ...]]: ...

    def alone(self, fact: Fact) -> Question:
        """The subject and nothing else, for probes."""
        ...

    def load(self) -> tuple[Fact, ...]:
        """Every fact, in an order that stays."""
        ...

    def split(self, known: list[tuple[Fact, float]]) -> Facts:
        """Which of those that the model knows are forgotten, retained, held out."""
        ...
