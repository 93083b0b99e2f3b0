"""General text: how well the model still writes English."""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Int

from mu_jax.edits.losses import next_token
from mu_jax.model.model import Model
from mu_jax.sharding import fetch
from mu_jax.types import Progress, Row, silent


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """Mean next-token cross-entropy on held-out general text, nats a token."""

    batch: int = 8
    limit: int = 24

    def __call__(
        self,
        model: Model,
        name: str,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
    ) -> list[Row]:
        """One row; lower is better, and n counts sequences."""
        text, losses = text[: self.limit], []
        progress("reading general text", 0, len(text))
        for start in range(0, len(text), self.batch):
            part = text[start : start + self.batch]
            filled = np.resize(part, (self.batch, text.shape[1]))
            loss = _loss(model.network, model.params, filled)
            losses.append(fetch(loss)[: len(part)])
            progress("reading general text", start + len(part), len(text))
        return [
            Row.of(
                np.concatenate(losses),
                model=name,
                eval="text",
                split="heldout",
                prompt="text",
                metric="loss",
            )
        ]


@functools.partial(jax.jit, static_argnames="network")
def _loss(network, params, tokens):
    stream, _ = network.stream(params, tokens)
    return next_token(network.logits(params, stream[:, :-1]), tokens)
