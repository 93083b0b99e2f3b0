"""What is kept apart when facts are split: nothing is measured where it was trained."""

import dataclasses

from mu_jax.errors import UserError
from mu_jax.facts.groups import cut, grouped, held_out
from mu_jax.facts.mentions import named
from mu_jax.types import Facts


def needs_tune(tune: int, tuning: bool) -> None:
    """Raises UserError where settings are to be chosen on no facts."""
    if tuning and not tune:
        raise UserError(
            "facts.tuning and facts.tune 0",
            "facts set aside to choose settings on",
            "add: --facts.tune 16",
        )


def tuning(found: Facts, share: float) -> Facts:
    """The split for choosing settings: nothing in it is reported.

    The facts set aside for it (tune) are forgotten, those to be retained are retained
    and, the last `share` of them, held out. All others are reserved.
    """
    facts = [known.fact for known in found.known]
    groups = grouped(facts)
    of = lambda split: [g for g in groups if found.known[g[0]].split == split]
    forget = of("tune")
    retain, heldout = held_out(of("retain"), share, facts, forget)
    used = {number for group in (*forget, *retain, *heldout) for number in group}
    rest = [group for group in groups if group[0] not in used]
    return cut(
        [(known.fact, known.probability) for known in found.known],
        forget=forget,
        retain=retain,
        heldout=heldout,
        reserved=rest,
    )


def untrained_neighbours(found: Facts) -> Facts:
    """The same facts, without neighbours about subjects that an edit trains on.

    What it trains to change changes, what it trains to keep stays: neither says
    whether an edit spares what it was never shown.
    """
    trained = {fact.subject for fact in (*found.forget, *found.retain)}
    texts = {text for known in found.known for text in known.fact.neighbours}
    barred = named(texts, trained)

    def spared(known):
        kept = tuple(text for text in known.fact.neighbours if text not in barred)
        fact = dataclasses.replace(known.fact, neighbours=kept)
        return dataclasses.replace(known, fact=fact)

    return Facts(tuple(map(spared, found.known)))
