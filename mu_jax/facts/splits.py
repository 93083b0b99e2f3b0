"""What is kept apart when facts are split: nothing is measured where it was trained."""

import dataclasses
import itertools

from mu_jax.errors import UserError
from mu_jax.facts.groups import Groups, cut, exactly, grouped, held_out, ordered
from mu_jax.facts.mentions import named
from mu_jax.types import Facts


def needs_tune(tune: int, tuning: bool) -> None:
    """Raises UserError where settings are to be chosen on no facts."""
    if tune == 1 or (tuning and not tune):
        raise UserError(
            f"facts.tune {tune}{' and facts.tuning' * tuning}",
            "facts set aside to choose settings on: half to forget, half to hold out",
            "add: --facts.tune 32",
        )


def too_few(
    known: int, forget: int, tune: int, heldout: float, reserved: int = 0
) -> UserError:
    """Says how many known facts it takes, and by which settings it takes fewer.

    Args:
      heldout: which share of what is left is held out.
    """
    pairs = ((n, n - round(n * (1 - heldout))) for n in itertools.count(2))
    rest = next(n for n, held in pairs if 0 < held < n)
    enough = forget + tune + reserved + rest
    wants = f"{forget} to forget, {rest} to retain and to hold out"
    wants += f", {reserved} reserved" * bool(reserved) + f", {tune} to tune on" * bool(
        tune
    )
    return UserError(
        f"{known} known facts",
        f"at least {enough}: {wants}"
        if known < enough
        else f"more than {known} that are about other subjects: {wants}",
        "give more facts, or a lower --facts.forget, --facts.tune or --known.threshold",
    )


def set_aside(groups: Groups, count: int) -> tuple[Groups, Groups]:
    """The last groups of a source, `count` facts in all, and the others, in order.

    Taken before anything is drawn: what was chosen on them may be used in every draw.
    """
    tune, rest = exactly(groups[::-1], count)
    return tune[::-1], rest[::-1]


def tuning(found: Facts) -> Facts:
    """The split for choosing settings: nothing that is measured in it is reported.

    Of the facts set aside for it (tune) the first half is forgotten, the other held
    out. Those to be retained are retained, all others reserved.

    Raises:
      UserError: all that were set aside are about one subject, or about retained ones.
    """
    facts = [known.fact for known in found.known]
    groups = grouped(facts)
    of = lambda split: [g for g in groups if found.known[g[0]].split == split]
    retain = of("retain")
    forget, heldout = held_out(of("tune"), 0.5, facts, retain)
    if not (forget and heldout):
        raise UserError(
            f"{len(ordered(forget + heldout))} facts set aside, of which"
            f" {len(ordered(heldout))} can be held out",
            "facts to forget, and facts about other subjects to hold out",
            "set more facts aside: --facts.tune",
        )
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
