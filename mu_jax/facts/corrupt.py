"""Corrupt prompts: the same question about another subject.

A worked example (method §4.2, sports):

    clean    <bos> Fact :  Michael  Jordan  plays the sport of     -> basketball
    corrupt  <bos> Fact :  Barry    Bonds   plays the sport of     -> baseball
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mu_jax.errors import UserError
from mu_jax.facts.templates import Template
from mu_jax.facts.tokens import prompts
from mu_jax.types import Fact, Prompts, Tokenizer


class Pair(NamedTuple):
    """Clean and corrupt prompts that differ at the subject's tokens only.

    Both carry the clean fact's answer and foil. `kept` are the indices of the facts
    for which a corrupt subject was found.
    """

    clean: Prompts
    corrupt: Prompts
    kept: list[int]


def other_subject(
    facts: Sequence[Fact],
    pool: Sequence[Fact],
    template: Template,
    tokenizer: Tokenizer,
    *,
    seed: int = 0,
    length: int | None = None,
) -> Pair:
    """Replaces each subject by one of the pool: as many tokens, another answer.

    Facts without such a partner are left out; `kept` tells which remain.

    Raises:
      UserError: no fact has a partner.
    """
    rng = np.random.default_rng(seed)
    mask = lambda fact: tuple(prompts([template(fact)], tokenizer).subject[0].tolist())
    candidates: dict[tuple, list[Fact]] = {}
    for fact in pool:
        candidates.setdefault(mask(fact), []).append(fact)
    kept, clean, corrupt = [], [], []
    for i, fact in enumerate(facts):
        partners = [
            other
            for other in candidates.get(mask(fact), [])
            if other.answer != fact.answer and other.subject != fact.subject
        ]
        if not partners:
            continue
        other = partners[rng.integers(len(partners))]
        kept.append(i)
        clean.append(template(fact))
        corrupt.append(template(dataclasses.replace(fact, subject=other.subject)))
    if not kept:
        raise UserError(
            f"none of {len(facts)} facts has another subject of as many tokens",
            "a pool with subjects of equal length and another answer",
            "give more facts",
        )
    return Pair(
        prompts(clean, tokenizer, length=length),
        prompts(corrupt, tokenizer, length=length),
        kept,
    )
