"""What a selector is: the protocol, for those of one's own too."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from mu_jax.types import Scores, Selection, Sizes


@runtime_checkable
class Selector(Protocol):
    """Scores to tensors: a frozen dataclass whose fields are its settings.

    Attributes:
      scores: the localizer whose scores it is given, by its name in the config; empty:
        none are, and it gets empty ones.

    One with a field `budget` may be given the name of another selection there.
    """

    @property
    def scores(self) -> str: ...

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        """The selection; `selections.components` and `matrices` make one."""
        ...


def resized(selector: Any, budget: int) -> Selector:
    """The selector with a budget of so many parameters."""
    return dataclasses.replace(selector, budget=budget)
