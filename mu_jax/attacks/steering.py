"""What an attacker does to the residual stream, and what the model then answers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.errors import UserError
from mu_jax.evals.recall import Ask
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.types import Prompts, Tensor


class Steering(NamedTuple):
    """What happens to the stream after every layer; rows of zeros change nothing.

    shift:  what is added at all positions behind the shared prefix.
    ablate: unit directions that are taken away, at all positions.
    """

    shift: Float[Tensor, "layer embedding"]
    ablate: Float[Tensor, "layer embedding"]

    @classmethod
    def none(cls, model: Model) -> "Steering":
        """No change at any layer; its arrays may be filled in."""
        shape = model.spec.layers, model.spec.embedding
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32))


def steered(model: Model, steering: Steering) -> Ask:
    """How a model answers whose stream is steered. One program serves all steerings."""

    def ask(prompts: Prompts, prefix: int) -> Float[Array, "batch vocabulary"]:
        return _logits(model.network, model.params, prompts, steering, prefix)

    return ask


@functools.partial(jax.jit, static_argnames=("network", "prefix"))
def _logits(
    network: Network, params: Params, prompts: Prompts, steering: Steering, prefix: int
) -> Float[Array, "batch vocabulary"]:
    stream, _ = network.stream(
        params,
        prompts.tokens,
        prompts.valid,
        prefix=prefix,
        shift={"resid": jnp.asarray(steering.shift)},
        ablate={"resid": steering.ablate},
    )
    return network.logits(params, take_last(stream, prompts.last - prefix))


def spread(model: Model, layers: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """The layers asked for; without any, `count` at equal distances over the depth.

    Raises:
      UserError: a layer that the model does not have.
    """
    total = model.spec.layers
    if layers is None:
        places = [(i + 1) * total // (count + 1) for i in range(count)]
        return tuple(dict.fromkeys(places))
    for layer in layers:
        if not 0 <= layer < total:
            raise UserError(
                f"an attack at layer {layer}",
                f"layers from 0 to {total - 1}",
                f"{model.name} has no other",
            )
    return layers
