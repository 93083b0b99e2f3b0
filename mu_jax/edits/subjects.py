"""Where a fact is looked up: the last token of its subject, behind several contexts.

Knowledge editors change what an MLP says at that token. Rows are laid out so that it
stands in the same column for every fact and every context:

    column               0     ...                 start
    as asked           <pad> <pad> <bos> Michael  Jordan  plays  the  sport  of  <pad>
    behind a context   <bos> The   river Michael  Jordan  plays  the  sport  of  <pad>

What stands before `start` cannot depend on an edit's change at it, and is run once.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mu_jax.errors import UserError
from mu_jax.model.network import Network
from mu_jax.model.params import Params
from mu_jax.model.precision import wide
from mu_jax.types import Prompts


class Subjects(NamedTuple):
    """Prompts [fact, context, seq] whose subjects all end in the column `start`.

    The first context of each fact is none: the prompt as it is asked.
    """

    prompts: Prompts
    start: int

    def place(self, network: Network, fact: int) -> Prompts:
        """The rows of one fact, on the devices of `network`."""
        rows = self.prompts.rows(fact)
        return network.layout.rows(rows) if network.layout else rows


def check(contexts: int, length: int) -> None:
    """Raises UserError for contexts that cannot be."""
    if contexts < 0 or length < 1:
        raise UserError(
            f"{contexts} contexts of {length} tokens",
            "0 contexts or more, of at least 1 token",
        )


def align(
    asked: Prompts, text: Int[np.ndarray, "rows seq"], contexts: int, length: int
) -> Subjects:
    """Each prompt as it is, and behind `contexts` beginnings of general text.

    Args:
      asked: padded on the right, BOS first.
      text: sequences of general text, BOS first; evenly spaced ones are used.
      contexts: how many.
      length: tokens of each, BOS left out.

    Raises:
      UserError: a prompt without a subject, or too little text.
    """
    if not asked.subject.any(axis=1).all():
        row = int(np.argmin(asked.subject.any(axis=1)))
        raise UserError(
            f"forget prompt {row}, which marks no subject",
            "prompts that say where their subject stands",
            "ask in a format with a subject",
        )
    if contexts and (len(text) < contexts or text.shape[1] <= length):
        raise UserError(
            f"general text of {len(text)} rows of {text.shape[1]} tokens",
            f"{contexts} contexts of {length} tokens behind BOS",
            "give a longer text, or fewer and shorter contexts",
        )
    chosen = text[np.arange(contexts) * len(text) // max(contexts, 1), 1 : length + 1]
    before = [np.zeros(0, np.int32), *chosen]
    ends = asked.valid.shape[1] - 1 - asked.subject[:, ::-1].argmax(axis=1)
    start = int(ends.max()) + (length if contexts else 0)
    width = start + int((asked.last - ends).max()) + 1
    shape = (len(ends), len(before), width)
    tokens = np.full(shape, asked.tokens[0, 0], np.int32)
    valid, subject = np.zeros(shape, bool), np.zeros(shape, bool)
    for fact, end in enumerate(ends.tolist()):
        n = int(asked.last[fact]) + 1
        for row, context in enumerate(before):
            first = start - end - len(context)
            here = slice(first, first + n + len(context))
            at = (fact, row, here)
            words = asked.tokens[fact, :n]
            tokens[at] = np.concatenate([words[:1], context, words[1:]])
            valid[at] = True
            subject[fact, row, start - end : start - end + n] = asked.subject[fact, :n]
    repeat = lambda a: np.repeat(np.asarray(a)[:, None], len(before), axis=1)
    rest = (repeat(a) for a in (asked.answer, asked.foil, asked.options))
    return Subjects(Prompts(tokens, valid, subject, *rest), start)


@functools.partial(jax.jit, static_argnames=("network", "start", "read"))
def look(
    network: Network,
    params: Params,
    rows: Prompts,
    start: int,
    read: tuple[str, ...],
) -> dict[str, Float[Array, "layer site"]]:
    """What the network computes where the subject ends, the mean over a fact's rows."""
    memory = network.remember(params, rows.tokens[:, :start], rows.valid[:, :start])
    stop = start + 1
    _, reads = network.stream(
        params,
        rows.tokens[:, :stop],
        rows.valid[:, :stop],
        prefix=start,
        memory=memory,
        read=read,
    )
    return {kind: wide(a[:, :, 0]).mean(axis=1) for kind, a in reads.items()}
