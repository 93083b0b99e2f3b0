"""How long prompts are, without the model's tokenizer (its weights may be gated).

Words and signs are counted, and rounded up: a tokenizer cuts names into more tokens
than there are words. Longer rows than the run will have make the plan too careful,
never too bold.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.source import FactSource
from mu_jax.runs import own
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Question

TOKENS_A_WORD = 1.5
_STEP = 8


class Lengths(NamedTuple):
    """Of the questions of one format, in tokens; `rows` is how many there are."""

    rows: int
    width: int
    prefix: int
    options: int

    def __str__(self) -> str:
        return f"{self.width} tokens, of which {self.prefix} are shared"


def shipped(source: FactSource) -> FactSource:
    """The source with the facts that come with the package, whatever its path is.

    One's own has none there, and stays as it is.
    """
    if own.classes(source):
        return source
    if isinstance(source, CounterFact):
        return dataclasses.replace(source, path=None, hub_split=None)
    return dataclasses.replace(source, path=None)  # pyright: ignore[reportArgumentType]


def assumed(questions: Sequence[Question]) -> Lengths:
    """What the questions will need at most, and what they surely share."""
    tokenizer = ToyTokenizer(1 << 30)
    encodings = [tokenizer.encode(q.text) for q in questions]
    longest = max(len(e.ids) for e in encodings)
    width = -(-int(TOKENS_A_WORD * longest) // _STEP) * _STEP
    columns = zip(*(e.ids for e in encodings), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda c: len(set(c)) == 1, columns))
    for question, encoding in zip(questions, encodings, strict=True):
        before = len(encoding.ids) - 1
        if question.subject:
            before = sum(stop <= question.start for _, stop in encoding.spans)
        shared = min(shared, before)
    return Lengths(len(questions), width, shared, len(questions[0].options))
