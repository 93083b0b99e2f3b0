"""A victim in miniature: a tiny model, athletes that it knows nothing about."""

import dataclasses

from mu_jax.attacks.victim import Victim
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.selectors import Layers
from mu_jax.types import Facts, Known


def victim(original, model=None, *, forget=6, seed=0) -> Victim:
    """The edited model is the original where none is given."""
    source = Sports(forget=forget)
    facts = source.split([(fact, 1.0) for fact in source.load()[:40]])
    text, _ = Text(length=12).load(original.tokenizer)
    return Victim(
        name="edited",
        model=model or original,
        original=original,
        selection=Layers(mlp=(2, 3))(None, original.sizes),
        facts=facts,
        twins=twins(facts),
        templates=source.templates[:2],
        text=text,
        seed=seed,
    )


def twins(facts: Facts):
    """The same question about subjects that do not exist."""
    return {
        fact.id: dataclasses.replace(
            fact, subject=(other := f"Dorvan Kelmick{i}"), prompt=f"{other} plays"
        )
        for i, fact in enumerate(facts.forget)
    }


def without(victim: Victim, split: str) -> Victim:
    """The victim whose facts lack a split."""
    known: list[Known] = [k for k in victim.facts.known if k.split != split]
    return dataclasses.replace(victim, facts=Facts(tuple(known)))


def bits(model) -> dict[str, bytes]:
    """Every parameter, to the last bit."""
    return {
        label: array.unwrap(*array.named_shape).tobytes()
        for label, array in model.params.items()
    }
