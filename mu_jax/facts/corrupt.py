"""Corrupt prompts: the same question, without what tells its subject.

A worked example (method §4.2, sports):

    clean          <bos> Fact :  Michael  Jordan  plays the sport of    -> basketball
    other subject  <bos> Fact :  Barry    Bonds   plays the sport of    -> baseball
    random tokens  <bos> Fact :  qo       lbi     plays the sport of
    noise          <bos> Fact :  Michael  Jordan  plays the sport of    + noise on both

A corruption is a frozen callable dataclass: facts in, a `Pair` of clean and corrupt
prompts out. Noise is added to the embeddings by the localizer: in its pair the corrupt
prompts are the clean ones.
"""

import dataclasses
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mu_jax.errors import UserError
from mu_jax.facts.groups import alike
from mu_jax.facts.mentions import elsewhere, renamed
from mu_jax.facts.templates import Single
from mu_jax.facts.tokens import prompts
from mu_jax.types import Fact, Prompts, Question, Tokenizer


class Pair(NamedTuple):
    """Clean and corrupt prompts that differ at the subject's tokens only.

    Both carry the clean fact's answer and foil. `kept` are the indices of the facts
    for which a corrupt subject was found; prompts that name their subject twice have
    none.
    """

    clean: Prompts
    corrupt: Prompts
    kept: list[int]


@dataclasses.dataclass(frozen=True)
class OtherSubject:
    """Another subject of as many tokens, with the same relation and another answer."""

    seed: int = 0

    def __call__(
        self,
        facts: Sequence[Fact],
        pool: Sequence[Fact],
        template: Single,
        tokenizer: Tokenizer,
        *,
        length: int | None = None,
    ) -> Pair:
        """Replaces each subject by one of the pool.

        Facts without such a partner are left out; `kept` tells which remain.

        Raises:
          UserError: no fact has a partner.
        """
        rng = np.random.default_rng(self.seed)
        shape = lambda fact: (fact.relation, _shape(template(fact), tokenizer))
        candidates: dict[tuple, list[Fact]] = {}
        for fact in pool:
            candidates.setdefault(shape(fact), []).append(fact)

        def corrupt(fact: Fact) -> Question | None:
            wanted = shape(fact)
            others = [
                other
                for other in candidates.get(wanted, [])
                if other.answer != fact.answer
                and alike(other.subject) != alike(fact.subject)
            ]
            start = rng.integers(len(others)) if others else 0
            for other in (*others[start:], *others[:start]):
                asked = template(renamed(fact, other.subject))
                if _shape(asked, tokenizer) == wanted[1]:
                    return asked
            return None

        return _pair(facts, corrupt, template, tokenizer, length)


@dataclasses.dataclass(frozen=True)
class RandomTokens:
    """Random lower-case words in place of the subject, as many tokens as it has.

    Attributes:
      tries: draws for one fact until the text has the subject's tokens (method §4.2).
    """

    seed: int = 0
    tries: int = 100

    def __call__(
        self,
        facts: Sequence[Fact],
        pool: Sequence[Fact],
        template: Single,
        tokenizer: Tokenizer,
        *,
        length: int | None = None,
    ) -> Pair:
        """Replaces each subject; `pool` is not used.

        Facts for which no draw fits are left out; `kept` tells which remain.

        Raises:
          UserError: no fact has one.
        """

        def corrupt(fact: Fact) -> Question | None:
            rng = np.random.default_rng([self.seed, *fact.id.encode()])
            wanted = _shape(template(fact), tokenizer)
            for _ in range(self.tries):
                words = [_word(rng) for _ in range(sum(wanted))]
                asked = template(renamed(fact, " ".join(words)))
                if _shape(asked, tokenizer) == wanted:
                    return asked
            return None

        return _pair(facts, corrupt, template, tokenizer, length)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Noise on the embeddings of the subject's tokens (method §4.1).

    Attributes:
      scale: of the deviation, in deviations of the subjects' embedding entries.
      draws: runs averaged, each with other noise.
      per_row: the paper's runs: sqrt(scale * sigma), with each row's own sigma.
    """

    scale: float = 3.0
    draws: int = 10
    seed: int = 0
    per_row: bool = False

    def __post_init__(self):
        if not self.scale > 0:
            raise UserError(f"noise of scale {self.scale}", "a scale above 0")

    def __call__(
        self,
        facts: Sequence[Fact],
        pool: Sequence[Fact],
        template: Single,
        tokenizer: Tokenizer,
        *,
        length: int | None = None,
    ) -> Pair:
        """The clean prompts twice: the noise is on the embeddings, not in the text."""
        return _pair(facts, template, template, tokenizer, length)


Corruption = OtherSubject | RandomTokens | GaussianNoise


def _pair(
    facts: Sequence[Fact], corrupt, template: Single, tokenizer: Tokenizer, length
) -> Pair:
    """The facts for which `corrupt` gives a question, clean and corrupt.

    Left out is a fact whose prompt names its subject a second time: the corrupt prompt
    would still tell it, or differ from the clean one at more than the subject.
    """
    asked = [(i, fact, template(fact)) for i, fact in enumerate(facts)]
    alone = [(i, fact, clean) for i, fact, clean in asked if not elsewhere(clean)]
    both = [(i, clean, corrupt(fact)) for i, fact, clean in alone]
    found = [(i, clean, other) for i, clean, other in both if other is not None]
    if not found:
        raise UserError(
            f"none of {len(facts)} facts has a corrupt subject of as many tokens",
            "subjects that can be replaced at equal length, each named once",
            "give more facts, or choose another corruption",
        )
    kept, clean, other = zip(*found, strict=True)
    sides = [prompts(side, tokenizer, length=length) for side in (clean, other)]
    return Pair(sides[0], sides[1], list(kept))


def _shape(question: Question, tokenizer: Tokenizer) -> tuple[bool, ...]:
    """Which tokens of a question are its subject's."""
    return tuple(prompts([question], tokenizer).subject[0].tolist())


def _word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(string.ascii_lowercase), rng.integers(1, 4)))
