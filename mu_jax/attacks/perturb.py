"""A small push to the residual stream: does one vector bring all facts back?

Latent adversarial perturbation (Sheshadri et al. 2024, arXiv 2407.15549), turned from
a defence into a probe, and the same for all prompts: a vector v is added to the stream
after a layer, at every position behind the shared prefix. Projected gradient ascent,

    v  <-  P(v + s_t * R * g / |g|),     g = d/dv mean over taught facts of log p(true)

from v = 0, where P keeps |v| <= R = epsilon * (mean norm of the stream there) and the
step s_t falls to 0 in a straight line: with one that stays, v jumps about its goal and
ends where all prompts have the same answer. Scored on facts it has never seen: what
rises only together with the twins is a push towards an answer, not towards a fact.
"""

import dataclasses
import functools
from collections.abc import MutableMapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.steering import Steering, spread, steered
from mu_jax.attacks.victim import Victim
from mu_jax.devices.sharding import fetch
from mu_jax.edits.losses import cross_entropy
from mu_jax.errors import UserError
from mu_jax.facts.tokens import shared_prefix
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.types import Progress, Prompts, Row, Tensor, silent


@dataclasses.dataclass(frozen=True)
class Perturb:
    """One vector in the stream, found by projected gradient ascent.

    Attributes:
      layers: where; by default two, spread over the depth.
      epsilons: norms of the vector, as shares of the stream's mean norm at its layer.
      steps: of the ascent.
      step: length of the first one, as a share of the norm allowed.
      rows: at most this many taught facts are climbed on.
    """

    layers: tuple[int, ...] | None = None
    epsilons: tuple[float, ...] = (0.03,)
    steps: int = 10
    step: float = 0.5
    rows: int = 32

    needs: ClassVar[Needs] = "taught"

    def __post_init__(self):
        if self.steps < 1 or self.rows < 1:
            raise UserError(
                f"steps = {self.steps} and rows = {self.rows}", "at least 1 of each"
            )
        if not self.epsilons or min(self.epsilons) < 0 or self.step <= 0:
            raise UserError(
                f"epsilons = {self.epsilons} and step = {self.step}",
                "epsilons from 0 and a step over 0",
            )

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Rows at "layer=K eps=E"."""
        size = victim.model.spec.embedding
        budget = (
            f"{self.steps} steps on {len(self._taught(victim))} facts, {size} numbers"
        )
        scoring = Scoring(name, victim, budget, victim.scored, journal)
        scoring.baselines()
        model, layers = victim.model, spread(victim.model, self.layers, 2)
        points = [(layer, eps) for layer in layers for eps in self.epsilons]
        norms = None
        for done, (layer, eps) in enumerate(points):
            progress(name, done, len(points))
            at, ask = f"layer={layer} eps={eps:g}", None
            if not scoring.done(at):
                norms = self.norms(victim) if norms is None else norms
                steering = Steering.none(model)
                steering.shift[layer] = self.vector(victim, layer, eps * norms[layer])
                ask = steered(model, steering)
            scoring.measure(at, model, ask)
        progress(name, len(points), len(points))
        return scoring.rows()

    def norms(self, victim: Victim) -> Float[np.ndarray, " layer"]:
        """The stream's mean L2 norm after each layer, behind the prefix of the prompts.

        Of the prompts of the taught facts, padding left out.
        """
        asked = self._prompts(victim)
        prefix = shared_prefix(asked)
        read = victim.model.run(asked, prefix=prefix, read=("resid",)).reads["resid"]
        norms = np.linalg.norm(np.asarray(fetch(read), np.float64), axis=-1)
        return norms[:, np.asarray(asked.valid)[:, prefix:]].mean(axis=1)

    def vector(
        self, victim: Victim, layer: int, radius: float
    ) -> Float[np.ndarray, " embedding"]:
        """The vector found for a layer, no longer than `radius`."""
        model, asked = victim.model, self._prompts(victim)
        prefix = shared_prefix(asked)
        found = np.zeros(model.spec.embedding, np.float32)
        for step in range(self.steps):
            share = self.step * (1 - step / self.steps)
            found = climb(
                model.network,
                model.params,
                asked,
                np.int32(layer),
                found,
                np.float32(radius),
                np.float32(share),
                prefix,
            )
        return fetch(found)

    def _taught(self, victim: Victim):
        return victim.taught[: self.rows]

    def _prompts(self, victim: Victim) -> Prompts:
        return victim.prompts(self._taught(victim))[0]


@functools.partial(jax.jit, static_argnames=("network", "prefix"))
def climb(
    network: Network,
    params: Params,
    prompts: Prompts,
    layer: Int[Tensor, ""],
    vector: Float[Tensor, " embedding"],
    radius: Float[Tensor, ""],
    step: Float[Tensor, ""],
    prefix: int,
) -> Float[Array, " embedding"]:
    """One step of the ascent; layer and radius are data, one program serves all."""

    def known(v):
        shift = jnp.outer(jax.nn.one_hot(layer, network.spec.layers), v)
        stream, _ = network.stream(
            params,
            prompts.tokens,
            prompts.valid,
            prefix=prefix,
            shift={"resid": shift},
        )
        logits = network.logits(params, take_last(stream, prompts.last - prefix))
        return -cross_entropy(logits, prompts.answer).mean()

    slope = jax.grad(known)(jnp.asarray(vector))
    tiny = jnp.finfo(slope.dtype).tiny
    moved = vector + step * radius * slope / jnp.maximum(jnp.linalg.norm(slope), tiny)
    length = jnp.maximum(jnp.linalg.norm(moved), tiny)
    return moved * jnp.minimum(1, radius / length)
