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

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.types import Progress, Row, silent

METRICS = ("loss", "kl")


@dataclasses.dataclass(frozen=True)
class TextLoss:
    """Loss and KL on held-out general text.

    Attributes:
      batch: sequences a forward pass.
      limit: at most this many sequences, the first ones.
      positions: of how many tokens the logits are in memory at once (64 of Gemma 3, of
        both models, take 134 MB).
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
            before = original and original.params
            values = read(
                model.network, model.params, before, filled, chunk=self.positions
            )
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
            for metric in METRICS
            if metric in found[0]
        ]


@functools.partial(jax.jit, static_argnames=("network", "chunk"))
def read(
    network, params, original, tokens, *, chunk: int
) -> dict[str, Float[Array, " batch"]]:
    """The metrics by row; the logits of `chunk` positions at a time."""
    models = [params] if original is None else [params, original]
    streams = [network.stream(p, tokens)[0][:, :-1] for p in models]
    rows, positions, _ = streams[0].shape
    total = rows * positions

    def chunks(values):
        flat = values.reshape(total, *values.shape[2:])
        padding = [(0, -total % chunk)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(-1, chunk, *flat.shape[1:])

    def of(part):
        following, *ends = part
        log_q, *rest = (
            jax.nn.log_softmax(network.logits(p, end))
            for p, end in zip(models, ends, strict=True)
        )
        found = {"loss": -log_q[jnp.arange(chunk), following]}
        for log_p in rest:
            # sum p (log p - log q), with q - p added, whose sum is 0: so a normalizer
            # that is a rounding off changes it in second order
            away = log_p - log_q
            found["kl"] = (jnp.exp(log_p) * (away + jnp.expm1(-away))).sum(axis=-1)
        return found

    given = (jnp.asarray(tokens)[:, 1:], *streams)
    found = jax.lax.map(of, tuple(map(chunks, given)))
    means = {
        metric: values.reshape(-1)[:total].reshape(rows, positions).mean(axis=1)
        for metric, values in found.items()
    }
    # rounding of a tiny KL goes both ways
    return {m: jnp.maximum(v, 0) if m == "kl" else v for m, v in means.items()}
