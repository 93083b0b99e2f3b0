"""What an MLP, or the stream, would have to say for a fact to be another one.

The optimisation that ROME and MEMIT share (arXiv 2202.05262, section 3.1, eq. 4;
2210.07229, section 4.2): a change at the subject's last token, and nowhere else, under
which the model gives the injected answer.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from mu_jax.edits.losses import cross_entropy
from mu_jax.errors import UserError
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.types import Prompts


@dataclasses.dataclass(frozen=True)
class Value:
    """Adam on the change delta = |y| e of an activation y, minimising over e

        mean over contexts of -log p(injected answer) + decay |e|^2

    All lengths are in units of |y|, so that one setting serves every layer and model.
    The papers' third term, which keeps what "{subject} is a" says, is left out: prompts
    come as tokens, and not with that text.

    Attributes:
      steps: at most so many.
      learning_rate: how far a step may go, as a share of |y|.
      decay: weight of |e|^2, in nats.
      clamp: the longest e.
      enough: the injected answer's loss, in nats, below which no further step is made.
    """

    steps: int = 25
    learning_rate: float = 0.25
    decay: float = 0.05
    clamp: float = 4.0
    enough: float = 0.05

    def __post_init__(self):
        for name in ("steps", "learning_rate", "clamp"):
            if getattr(self, name) <= 0:
                raise UserError(f"value.{name} = {getattr(self, name)}", "more than 0")
        for name in ("decay", "enough"):
            if getattr(self, name) < 0:
                raise UserError(f"value.{name} = {getattr(self, name)}", "0 or more")

    def __call__(
        self,
        network: Network,
        params: Params,
        rows: Prompts,
        start: int,
        kind: str,
        layer: int,
        scale: float,
    ) -> "Found":
        """The change of a site of one fact, whose subject ends in the column `start`.

        Args:
          rows: the fact's prompt behind each context.
          kind, layer: where the change is made.
          scale: |y|.
        """
        knobs = {k: np.float32(v) for k, v in dataclasses.asdict(self).items()}
        at = np.int32(layer)
        return _find(network, params, rows, start, kind, at, np.float32(scale), knobs)


class Found(NamedTuple):
    """A change, and the loss of the injected answer (nats) without and with it."""

    delta: Float[Array, " embedding"]
    before: Float[Array, ""]
    after: Float[Array, ""]
    steps: Int[Array, ""]

    def record(self, scale: float) -> dict[str, float]:
        """One line of an edit's history."""
        return {
            "loss": float(self.before),
            "loss_after": float(self.after),
            "moved": float(np.linalg.norm(self.delta) / scale),
            "value_steps": int(self.steps),
        }


@functools.partial(jax.jit, static_argnames=("network", "start", "kind"))
def _find(network, params, rows, start, kind, layer, scale, knobs) -> Found:
    memory = network.remember(params, rows.tokens[:, :start], rows.valid[:, :start])
    size = network.spec.embedding
    batch, width = rows.tokens.shape
    nothing = jnp.zeros((network.spec.layers, batch, width - start, size))

    def objective(e):
        shift = nothing.at[layer, :, 0].set(jnp.broadcast_to(scale * e, (batch, size)))
        stream, _ = network.stream(
            params,
            rows.tokens,
            rows.valid,
            prefix=start,
            memory=memory,
            shift={kind: shift},
        )
        logits = network.logits(params, take_last(stream, rows.last - start))
        loss = cross_entropy(logits, rows.foil).mean()
        return loss + knobs["decay"] * (e**2).sum(), loss

    adam = optax.scale_by_adam()
    rate = knobs["learning_rate"] / jnp.sqrt(size)  # Adam moves each entry by about 1

    def step(state):
        number, e, moments, before, _, _ = state
        (_, loss), gradient = jax.value_and_grad(objective, has_aux=True)(e)
        done = (loss < knobs["enough"]) | (number >= knobs["steps"])
        update, moments = adam.update(gradient, moments)
        moved = e - rate * update
        length = jnp.linalg.norm(moved)
        moved = moved * jnp.minimum(1, knobs["clamp"] / jnp.maximum(length, 1e-12))
        before = jnp.where(number == 0, loss, before)
        return number + ~done, jnp.where(done, e, moved), moments, before, loss, done

    e, zero = jnp.zeros(size), jnp.zeros(())
    state = (jnp.int32(0), e, adam.init(e), zero, zero, jnp.bool_(False))
    end = jax.lax.while_loop(lambda state: ~state[-1], step, state)
    number, e, _, before, after, _ = end
    return Found(scale * e, before, after, number)
