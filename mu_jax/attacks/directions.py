"""A direction taken out of the residual stream: is the edit only a veil before it?

An edit may add to the stream something that speaks for the injected answer, and leave
what it knew in place. An attacker with the edited weights, and without the original's,
finds it as a difference of means, at a layer and at the last token of the prompt,

    d  =  mean over taught facts i of (x_i - mean over retained facts j like i of x_j)

where j is like i if it has the same true answer (if none has: all retained facts), so
that the answer itself cancels. Then x <- x - (x . d) d / (d . d) at every position,
after that layer and all above it, in the manner of Arditi et al. 2024 (arXiv
2406.11717) for refusal.
"""

import dataclasses
from collections.abc import MutableMapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.steering import Steering, spread, steered
from mu_jax.attacks.victim import Victim
from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate, shared_prefix
from mu_jax.model.model import Model
from mu_jax.types import Fact, Progress, Prompts, Row, silent


@dataclasses.dataclass(frozen=True)
class AblateDirection:
    """Difference of means, ablated. Trains nothing; fits on the taught half.

    Attributes:
      layers: where; by default four, spread over the depth.
      onward: at the layer and all above it, or at that layer alone.
      retained: at most this many retained facts to compare with.
    """

    layers: tuple[int, ...] | None = None
    onward: bool = True
    retained: int = 32

    needs: ClassVar[Needs] = "taught"

    def __post_init__(self):
        if self.retained < 1:
            raise UserError(f"retained = {self.retained} facts", "at least 1")

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Rows at "layer=K"."""
        budget = f"one direction, from {len(victim.taught)} taught facts"
        scoring = Scoring(name, victim, budget, victim.scored, journal)
        scoring.baselines()
        model, layers = victim.model, spread(victim.model, self.layers, 4)
        found = None
        for done, layer in enumerate(layers):
            progress(name, done, len(layers))
            at, ask = f"layer={layer}", None
            if not scoring.done(at):
                found = self.directions(victim) if found is None else found
                ask = steered(model, self.steering(model, found, layer))
            scoring.measure(at, model, ask)
        progress(name, len(layers), len(layers))
        return scoring.rows()

    def directions(self, victim: Victim) -> Float[np.ndarray, "layer embedding"]:
        """The unit direction of each layer; 0 where the means coincide.

        Raises:
          UserError: no retained facts.
        """
        taught, kept = victim.taught, self._kept(victim)
        both = concatenate(victim.prompts(taught, kept))
        ends = last_stream(victim.model, both)
        own, others = ends[:, : len(taught)], ends[:, len(taught) :]
        like = np.array([[a.answer == b.answer for b in kept] for a in taught], float)
        like[like.sum(axis=1) == 0] = 1
        like /= like.sum(axis=1, keepdims=True)
        found = (own - np.einsum("tk,lke->lte", like, others)).mean(axis=1)
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        return (found / np.where(norm > 0, norm, 1)).astype(np.float32)

    def _kept(self, victim: Victim) -> tuple[Fact, ...]:
        """The retained facts to compare with, those with the same answers first."""
        retained, answers = victim.facts.retain, {f.answer for f in victim.taught}
        if not retained:
            raise UserError(
                "no retained facts", "some, to compare with", "retain more facts"
            )
        like = tuple(fact for fact in retained if fact.answer in answers)
        return (like or retained)[: self.retained]

    def steering(
        self,
        model: Model,
        directions: Float[np.ndarray, "layer embedding"],
        layer: int,
    ) -> Steering:
        """What takes the direction of one layer away."""
        none = Steering.none(model)
        stop = model.spec.layers if self.onward else layer + 1
        none.ablate[layer:stop] = directions[layer]
        return none


def last_stream(
    model: Model, prompts: Prompts
) -> Float[np.ndarray, "layer batch embedding"]:
    """The residual stream after every layer, at the last token of each prompt."""
    prefix = shared_prefix(prompts)
    read = fetch(model.run(prompts, prefix=prefix, read=("resid",)).reads["resid"])
    rows = np.arange(len(prompts.tokens))
    return np.asarray(read[:, rows, np.asarray(prompts.last) - prefix], np.float64)
