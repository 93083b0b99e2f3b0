"""What an evaluation of one's own is: the protocol."""

from typing import Protocol, runtime_checkable

from mu_jax.facts.templates import Single
from mu_jax.model.model import Model
from mu_jax.types import Facts, Progress, Row, silent


@runtime_checkable
class Eval(Protocol):
    """Measures a model: a frozen dataclass whose fields are its settings."""

    def __call__(
        self,
        model: Model,
        name: str,
        facts: Facts,
        template: Single,
        progress: Progress = silent,
    ) -> list[Row]:
        """What it measured, as rows (`Row.of`) of any metrics.

        Args:
          name: of the model, `model` of the rows.
          template: the training prompt.
        """
        ...
