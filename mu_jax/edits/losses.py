"""What an edit minimises (method §3): L = weight * L_forget + L_retain + L_text."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mu_jax.model.network import Network, cross_entropy
from mu_jax.model.params import Params
from mu_jax.types import Prompts


class Loss(Protocol):
    """The forget term, a scalar in nats; implementations are frozen dataclasses."""

    weight: float

    def __call__(
        self, logits: Float[Array, "batch vocabulary"], prompts: Prompts
    ) -> Float[Array, ""]: ...


@dataclasses.dataclass(frozen=True)
class Inject:
    """L_inj: the mean of -log p(injected answer), over the whole vocabulary."""

    weight: float = 1.0

    def __call__(self, logits, prompts):
        return cross_entropy(logits, prompts.foil).mean()


def retain(
    logits: Float[Array, "batch vocabulary"], prompts: Prompts
) -> Float[Array, ""]:
    """L_retain: the mean of -log p(true answer), over the whole vocabulary."""
    return cross_entropy(logits, prompts.answer).mean()


def next_token(
    network: Network,
    params: Params,
    stream: Float[Array, "batch seq embedding"],
    tokens: Int[Array, "batch seq"],
    *,
    chunk: int = 256,
) -> Float[Array, " batch"]:
    """L_text by row: the mean of -log p(next token) over a row's positions, in nats.

    The logits of `chunk` positions exist at a time, in the backward pass too: those of
    a whole batch over a vocabulary of 262,144 would dwarf the model.
    """
    batch, seq, width = stream.shape
    targets = jnp.roll(tokens, -1, axis=1)
    n = batch * seq
    pad = -n % min(chunk, n)
    flat = jnp.pad(stream.reshape(n, width), ((0, pad), (0, 0)))
    goals = jnp.pad(targets.reshape(n), (0, pad))
    size = min(chunk, n)

    @jax.checkpoint
    def loss_of(part):
        return cross_entropy(network.logits(params, part[0]), part[1])

    parts = flat.reshape(-1, size, width), goals.reshape(-1, size)
    losses = jax.lax.map(loss_of, parts).reshape(-1)[:n].reshape(batch, seq)
    return losses[:, :-1].mean(axis=1)
