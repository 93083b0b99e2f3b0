"""The residual stream of prompts, at the two tokens where answers are read off it."""

import numpy as np
from jaxtyping import Float

from mu_jax.devices.sharding import fetch
from mu_jax.facts.tokens import batched, shared_prefix
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, silent

Residuals = Float[np.ndarray, "layers batch embedding"]
"""The embedding first, then the stream after each layer: one more than the layers."""


def residuals(
    model: Model, prompts: Prompts, batch: int, progress: Progress = silent
) -> tuple[Residuals, Residuals]:
    """The stream at the subject's last token, and at the prompt's.

    Args:
      batch: prompts a forward pass.
    """
    prefix, pieces, done = shared_prefix(prompts), [], 0
    progress("reading the residual stream", 0, len(prompts.tokens))
    for rows, n in batched(prompts, batch):
        resid = model.run(rows, read=("resid",), prefix=prefix).reads["resid"]
        embedded = model.network.embeddings(model.params, rows.tokens[:, prefix:])
        stack = np.concatenate([fetch(embedded)[None], fetch(resid)])
        seq = rows.tokens.shape[1]
        last = seq - 1 - rows.subject[:, ::-1].argmax(axis=1)
        places = np.stack([last, np.asarray(rows.last)]) - prefix
        pieces.append(stack[:, np.arange(len(last)), places][:, :, :n])
        done += n
        progress("reading the residual stream", done, len(prompts.tokens))
    at_subject, at_end = np.moveaxis(np.concatenate(pieces, axis=2), 1, 0)
    return at_subject, at_end
