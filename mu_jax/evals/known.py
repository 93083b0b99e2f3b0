"""Which facts does the model know? Only those can be forgotten."""

import dataclasses
from collections.abc import MutableMapping, Sequence

from mu_jax.errors import UserError
from mu_jax.evals.recall import answers
from mu_jax.facts.templates import Single
from mu_jax.model.model import Model
from mu_jax.types import Fact, Progress, silent


@dataclasses.dataclass(frozen=True)
class KnownFilter:
    """Keeps facts whose answer has probability over `threshold` (method §2).

    The probability is over the whole vocabulary, behind the training prompt.
    """

    threshold: float = 0.5
    batch: int = 64

    def ask(
        self,
        model: Model,
        facts: Sequence[Fact],
        template: Single,
        progress: Progress = silent,
        journal: MutableMapping[str, list[float]] | None = None,
    ) -> list[tuple[Fact, float]]:
        """Every fact with the probability of its answer, in the order of `facts`.

        Args:
          journal: what an earlier call, cut short, was told is not asked again.
        """
        if not facts:
            raise UserError("no facts", "at least one", "give another source of facts")
        found = answers(model, facts, template, self.batch, progress, None, journal)
        p_true = found["p_true"]
        return [(fact, float(p)) for fact, p in zip(facts, p_true, strict=True)]

    def keep(self, asked: Sequence[tuple[Fact, float]]) -> list[tuple[Fact, float]]:
        """Those over the threshold.

        Raises:
          UserError: none is.
        """
        known = [(fact, p) for fact, p in asked if p > self.threshold]
        if not known:
            best, p = max(asked, key=lambda pair: pair[1])
            raise UserError(
                f"the model knows none of {len(asked)} facts (the best, "
                f"{best.subject}, has probability {p:.3f})",
                f"some with probability over {self.threshold}",
                "lower the threshold, or give facts that this model knows",
            )
        return known
