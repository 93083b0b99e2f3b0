"""What an edit minimises (method §3): L = weight * L_forget + L_retain + L_text."""

import dataclasses

from jaxtyping import Array, Float, Int

from mu_jax.model.network import cross_entropy
from mu_jax.types import Prompts, Tensor


@dataclasses.dataclass(frozen=True)
class Loss:
    """The forget term: a frozen dataclass that maps logits and prompts to nats.

    `weight` is the paper's lambda; the retain and text terms have weight 1.
    """

    weight: float = 1.0

    def __call__(
        self, logits: Float[Array, "batch vocabulary"], prompts: Prompts
    ) -> Float[Array, ""]:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Inject(Loss):
    """L_inj: the mean of -log p(injected answer), over the whole vocabulary."""

    def __call__(self, logits, prompts):
        return cross_entropy(logits, prompts.foil).mean()


def retain(
    logits: Float[Array, "batch vocabulary"], prompts: Prompts
) -> Float[Array, ""]:
    """L_retain: the mean of -log p(true answer), over the whole vocabulary."""
    return cross_entropy(logits, prompts.answer).mean()


def next_token(
    logits: Float[Array, "batch seq vocabulary"], tokens: Int[Tensor, "batch seq+1"]
) -> Float[Array, " batch"]:
    """L_text by row: the mean of -log p(next token) over a row's positions, in nats."""
    return cross_entropy(logits, tokens[:, 1:]).mean(axis=1)
