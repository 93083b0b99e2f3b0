"""A context and its continuation as tokens: none is without any, none is given away."""

from collections.abc import Sequence

from mu_jax.errors import UserError
from mu_jax.types import Tokenizer

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context, BOS first, and of its continuation."""


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> Pair:
    """Both as tokens, cut where the context's own tokens end.

    They are tokenised as one text, after the spaces that end the context have gone over
    to the continuation: words begin with their space. An empty context is BOS alone.

    Where a token would begin in one and end in the other ("hello wor" and "ld"), the
    continuation is tokenised by itself: cut behind the context, it would have nothing
    to say, and be certain.

    Raises:
      UserError: a continuation with text and without a token.
    """
    kept = context.rstrip()
    moved = context[len(kept) :] + continuation
    before, whole = (tokenizer.encode(text).ids for text in (kept, kept + moved))
    said = whole[len(before) :]
    if moved and (not said or whole[: len(before)] != before):
        said = spoken(tokenizer, moved)
    return before, said


def spoken(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text by itself, BOS left out.

    Raises:
      UserError: it has none.
    """
    ids = tokenizer.encode(text).ids[1:]
    if not ids:
        raise UserError(
            f"{text[:40]!r}, of which the tokenizer makes no token",
            "text that it has tokens for",
            "leave the task out, or take another model",
        )
    return ids
