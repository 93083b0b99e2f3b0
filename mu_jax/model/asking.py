"""What a model says to a prompt, to read: the likeliest next tokens, a continuation.

Shapes are rounded up, so that a person who asks one prompt after another waits for one
compilation and not for one each time.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.facts.tokens import batches, first_token, padded
from mu_jax.model.generate import begin, ended, go_on
from mu_jax.types import Progress, silent

if TYPE_CHECKING:
    from mu_jax.model.model import Model

_STEP = 16
"""Prompts are padded to a multiple of so many tokens."""
_TOP = 5


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says behind a prompt.

    Attributes:
      next: the likeliest next tokens as text, with their probabilities, in order.
      said: how it goes on, greedily, up to where the text ends.
      options: of each text asked for, the probability of its first token; None where it
        has none of its own (`facts.tokens.first_token`).
    """

    prompt: str
    next: tuple[tuple[str, float], ...]
    said: str
    options: dict[str, float | None] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        likely = ", ".join(f"{text!r} {p:.2f}" for text, p in self.next)
        return f"{self.prompt!r} -> {likely}; goes on {self.said!r}"


def ask(
    model: "Model",
    asked: Sequence[str],
    *,
    options: Sequence[Sequence[str]] = (),
    top: int = _TOP,
    length: int = 16,
    batch: int = 16,
    progress: Progress = silent,
) -> list[Answer]:
    """What the model says to each prompt.

    Args:
      options: of each prompt, texts that might follow it; each begins with the space
        that the prompt leaves out, where there is one.
      top: how many next tokens.
      length: tokens a continuation, at most.
      batch: prompts a forward pass.

    Raises:
      UserError: nothing asked, an empty prompt, or one that with its continuation
        exceeds the model's context.
    """
    if not asked or not all(asked):
        raise UserError("an empty prompt", "some text to go on from")
    if min(top, length, batch) < 1:
        raise UserError(f"top {top}, length {length}, batch {batch}", "at least 1 each")
    words = model.tokenizer
    ids = [words.encode(text).ids for text in asked]
    longest = max(map(len, ids))
    if longest + length > model.spec.context:
        raise UserError(
            f"a prompt of {longest} tokens, and {length} behind it",
            f"at most {model.spec.context}, the model's context",
            "shorten it",
        )
    width = min(-(-longest // _STEP) * _STEP, model.spec.context)
    tokens, valid = padded(ids, words.pad, width)
    each = [*options] or [()] * len(asked)
    firsts = [{text: first_token(text, words) for text in texts} for texts in each]
    most = min(top, model.spec.vocabulary)
    found: list[Answer] = []
    for rows, n in batches(len(asked), min(batch, len(asked))):
        state = begin(
            model.network, model.params, tokens[rows], valid[rows], room=length
        )
        log_p = jax.nn.log_softmax(state.logits.astype(jnp.float32), axis=1)
        likeliest = fetch(jax.lax.top_k(log_p, most))
        log_p = np.asarray(fetch(log_p))
        said = fetch(go_on(model, state, length, words.ends)[1])
        for row in range(n):
            at = len(found)
            one = {
                text: None if token is None else float(np.exp(log_p[row, token]))
                for text, token in firsts[at].items()
            }
            pairs = zip(*(part[row] for part in likeliest), strict=True)
            likely = tuple((words.decode([int(t)]), float(np.exp(p))) for p, t in pairs)
            text = words.decode(ended(said[row], words.ends))
            found.append(Answer(asked[at], likely, text, one))
        progress("asking", len(found), len(asked))
    return found
