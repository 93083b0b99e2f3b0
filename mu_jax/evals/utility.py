"""General text: how well the model still writes English, and how far it has moved.

    loss    mean over a sequence of -log p(next token), nats a token; lower is better
    kl      mean over its positions of KL(original || edited), nats a token, over the
            whole vocabulary; from 0, lower is better: the same model has exactly 0

The loss falls where an edit happens to like the text; the KL counts every change.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mu_jax.edits.losses import next_token
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.sharding import fetch
from mu_jax.types import Progress, Row, silent


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """Loss and KL on held-out general text.

    Attributes:
      batch: sequences a forward pass.
      limit: at most this many sequences, the first ones.
      positions: of how many tokens both models' logits are in memory at once, for the
        KL (64 of Gemma 3 take 134 MB).
    """

    batch: int = 8
    limit: int = 24
    positions: int = 64

    def __post_init__(self):
        for knob in ("batch", "limit", "positions"):
            if getattr(self, knob) < 1:
                raise UserError(f"text.{knob} = {getattr(self, knob)}", "at least 1")

    def __call__(
        self,
        model: Model,
        name: str,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        original: Model | None = None,
    ) -> list[Row]:
        """The loss, and where the `original` is given the KL; n counts sequences."""
        text, found = text[: self.limit], []
        progress("reading general text", 0, len(text))
        for start in range(0, len(text), self.batch):
            part = text[start : start + self.batch]
            filled = np.resize(part, (self.batch, text.shape[1]))
            if original is None:
                values = {"loss": _loss(model.network, model.params, filled)}
            else:
                both = original.params, model.params
                read = _loss_and_kl(model.network, *both, filled, chunk=self.positions)
                values = dict(zip(("loss", "kl"), read, strict=True))
            found.append({k: fetch(v)[: len(part)] for k, v in values.items()})
            progress("reading general text", start + len(part), len(text))
        return [
            Row.of(
                np.concatenate([values[metric] for values in found]),
                model=name,
                eval="text",
                split="heldout",
                prompt="text",
                metric=metric,
            )
            for metric in found[0]
        ]


@functools.partial(jax.jit, static_argnames="network")
def _loss(network, params, tokens):
    stream, _ = network.stream(params, tokens)
    return next_token(network.logits(params, stream[:, :-1]), tokens)


@functools.partial(jax.jit, static_argnames=("network", "chunk"))
def _loss_and_kl(
    network, original, edited, tokens, *, chunk: int
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """By row; the logits of `chunk` positions at a time."""
    streams = [
        network.stream(params, tokens)[0][:, :-1] for params in (original, edited)
    ]
    rows, positions, _ = streams[0].shape
    total = rows * positions

    def chunks(values):
        flat = values.reshape(total, *values.shape[2:])
        padding = [(0, -total % chunk)] + [(0, 0)] * (flat.ndim - 1)
        padded = jnp.pad(flat, padding)
        return padded.reshape(-1, chunk, *flat.shape[1:])

    def of(part):
        *ends, following = part
        log_p, log_q = (
            jax.nn.log_softmax(network.logits(params, end))
            for params, end in zip((original, edited), ends, strict=True)
        )
        # sum p (log p - log q), with q - p added, whose sum is 0: so a normalizer that
        # is a rounding off changes it in second order, and no term is below 0
        away = log_p - log_q
        kl = (jnp.exp(log_p) * (away + jnp.expm1(-away))).sum(axis=-1)
        return -log_q[jnp.arange(chunk), following], kl

    found = jax.lax.map(of, (*map(chunks, streams), chunks(jnp.asarray(tokens)[:, 1:])))
    loss, kl = (
        values.reshape(-1)[:total].reshape(rows, positions).mean(axis=1)
        for values in found
    )
    return loss, jnp.maximum(kl, 0)  # rounding of a tiny KL goes both ways
