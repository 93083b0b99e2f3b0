"""The logit lens: what would the model say if it stopped after layer K?

The stream after each layer, at the prompt's last token, goes through the final norm and
the unembedding (nostalgebraist 2020, "interpreting GPT: the logit lens"). A model that
only learnt to say something else still says the truth on its way: `choice_p_true` rises
in the middle and falls where the edit is.

    p_true, p_injected                probability over the whole vocabulary
    choice_p_true, choice_p_injected  over the options only
    log_rank_true                     log(1 + how many tokens are likelier than the true
                                      answer): of ranks one fact would make the mean

Rows `layer=0` are the embeddings, `layer=K` the stream after K layers; after the last
layer these are the model's own answers, as Recall measures them. Early layers speak
another language than the unembedding does, so that a low number there says little.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.evals.recall import judged, posed
from mu_jax.facts.templates import Format
from mu_jax.facts.tokens import batched
from mu_jax.localizers.residuals import residuals
from mu_jax.model.model import Model
from mu_jax.types import Facts, Progress, Prompts, Row, silent

METRICS = (
    "choice_p_true",
    "choice_p_injected",
    "p_true",
    "p_injected",
    "log_rank_true",
)


@dataclasses.dataclass(frozen=True)
class LogitLens:
    """The answers of every layer, for forgotten and held-out facts.

    Attributes:
      batch: prompts a forward pass, and rows of logits in memory at once.
      limit: at most this many facts of each split, the first ones.
    """

    batch: int = 48
    limit: int = 32

    def __post_init__(self):
        for knob in ("batch", "limit"):
            if getattr(self, knob) < 1:
                raise UserError(f"lens.{knob} = {getattr(self, knob)}", "at least 1")

    def __call__(
        self,
        model: Model,
        name: str,
        facts: Facts,
        template: Format,
        progress: Progress = silent,
    ) -> list[Row]:
        """One row a layer, split and metric; one value a fact.

        Raises:
          UserError: the format asks about none of the facts.
        """
        limits = {"forget": self.limit, "heldout": self.limit}
        asked, cuts = posed(model, facts, template, limits)
        _, at_end = residuals(model, asked, self.batch, progress)
        values = self._values(model, at_end, asked)
        return [
            Row.of(
                values[metric][k, cut],
                model=name,
                eval="lens",
                split=split,
                prompt=template.name,
                metric=metric,
                at=f"layer={k}",
                share=metric != "log_rank_true",
            )
            for k in range(len(at_end))
            for split, cut in cuts.items()
            for metric in METRICS
        ]

    def _values(
        self, model: Model, at_end: Float[np.ndarray, "layers n embedding"], asked
    ) -> dict[str, Float[np.ndarray, "layers n"]]:
        pieces, start = [], 0
        for part, n in batched(asked, min(self.batch, len(asked.tokens))):
            resid = at_end[:, start : start + n]
            filler = np.repeat(resid[:, :1], len(part.tokens) - n, axis=1)
            resid = np.concatenate([resid, filler], axis=1)
            found = fetch(_lens(model.network, model.params, resid, part))
            pieces.append({metric: v[:, :n] for metric, v in found.items()})
            start += n
        return {m: np.concatenate([p[m] for p in pieces], axis=1) for m in METRICS}


@functools.partial(jax.jit, static_argnames="network")
def _lens(
    network, params, resid: Float[Array, "layers batch embedding"], asked: Prompts
) -> dict[str, Float[Array, "layers batch"]]:
    """A layer at a time: a batch of logits is what takes memory."""

    def one(resid):
        logits = network.lens(params, resid.astype(params["embedder"].dtype))
        true = jnp.take_along_axis(logits, asked.answer[:, None], axis=1)
        rank = jnp.log1p((logits > true).sum(axis=1))
        values = {**judged(logits, asked), "log_rank_true": rank}
        return {metric: values[metric].astype(jnp.float32) for metric in METRICS}

    return jax.lax.map(one, resid)
