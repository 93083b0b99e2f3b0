"""Which facts does the model know? Only those can be forgotten."""

import dataclasses
from collections.abc import Sequence

from mu_jax.errors import UserError
from mu_jax.evals.recall import answers
from mu_jax.facts.templates import Template
from mu_jax.model.model import Model
from mu_jax.types import Fact, Progress, silent


@dataclasses.dataclass(frozen=True)
class KnownFilter:
    """Keeps facts whose answer has probability over `threshold` (method §2).

    The probability is over the whole vocabulary, behind the training prompt.
    """

    threshold: float = 0.5
    batch: int = 64

    def __call__(
        self,
        model: Model,
        facts: Sequence[Fact],
        template: Template,
        progress: Progress = silent,
    ) -> list[tuple[Fact, float]]:
        """The known facts with their probabilities, in the order of `facts`.

        Raises:
          UserError: the model knows none of them.
        """
        probability = answers(model, facts, template, self.batch, progress)["p_true"]
        known = [
            (fact, float(p))
            for fact, p in zip(facts, probability, strict=True)
            if p > self.threshold
        ]
        if not known:
            best = int(probability.argmax())
            raise UserError(
                f"{model.name} knows none of {len(facts)} facts (the best, "
                f"{facts[best].subject}, has probability {probability[best]:.3f})",
                f"some with probability over {self.threshold}",
                "lower the threshold, or give facts that this model knows",
            )
        return known
