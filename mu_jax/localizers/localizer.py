"""What a localizer is: the protocol, for methods of one's own too."""

from collections.abc import MutableMapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from mu_jax.model.model import Model
from mu_jax.types import Progress, Scores, silent

Needs = Literal["pairs", "subjects", "text"]
"""What a localizer is given behind the model.

pairs     clean and corrupt prompts (two `Prompts`), row by row of the same facts; it
          says how many (`rows`) and how they are made corrupt (`corruption`)
subjects  {"alone": subjects and nothing else, "train": in the training prompt}, both
          `Prompts` row by row of the same facts: those that the model gives at least
          the probability `threshold`
text      general text, token ids [rows, seq], BOS first
"""
SETTINGS: dict[str, tuple[str, ...]] = {
    "pairs": ("rows", "corruption"),
    "subjects": ("threshold",),
    "text": (),
}
"""Which settings that asks of it."""


@runtime_checkable
class Localizer(Protocol):
    """Turns prompts into scores: a frozen dataclass whose fields are its settings."""

    needs: ClassVar[Needs]

    def __call__(
        self,
        model: Model,
        *given: Any,
        progress: Progress = silent,
        journal: MutableMapping[str, Any] | None = None,
    ) -> Scores:
        """The scores, which say themselves what they found (`Scores.finding`).

        Args:
          given: what it needs.
          progress: to be told now and then; a safe point to stop at.
          journal: lists of numbers by name, kept on disk as they are set: what an
            earlier call, cut short, has measured and this one need not.
        """
        ...
