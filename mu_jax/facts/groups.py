"""Which records are the same fact: one subject and relation under several ids.

What an edit is taught of one of them it knows of the others. So all of a group go into
one split; of facts that are all different, each is a group of its own.
"""

import functools
import random
import unicodedata
from collections.abc import Sequence

from mu_jax.errors import UserError
from mu_jax.types import Fact, Facts, Known

Groups = list[list[int]]
"""Numbers of facts, those of the same fact together."""


@functools.lru_cache(1 << 16)
def alike(name: str) -> str:
    """What names have in common that differ in case, accents or spaces alone.

    Accents are the marks over and under letters, vowel points of Hebrew and Arabic
    among them; not those that Indic, Thai or Japanese words are told apart by.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    letters = unicodedata.normalize("NFKD", folded)
    plain = (c for c in letters if not c.isspace() and not _accent(c))
    return unicodedata.normalize("NFC", "".join(plain))


def grouped(facts: Sequence[Fact]) -> Groups:
    """The facts' numbers, group by group, in order of appearance.

    A relation that is a prompt (with `{}` for the subject) is none that has a name:
    the same may be asked in other words. So all facts of such a subject are one group.
    """
    names = [alike(fact.subject) for fact in facts]
    nameless = {
        name for name, fact in zip(names, facts, strict=True) if "{}" in fact.relation
    }
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, (name, fact) in enumerate(zip(names, facts, strict=True)):
        key = (name,) if name in nameless else (name, alike(fact.relation))
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def repeats(facts: Sequence[Fact], pool: Sequence[Fact]) -> set[str]:
    """The ids of all in `pool` that are one of these facts, under whatever id."""
    both = [*facts, *pool]
    groups = [g for g in grouped(both) if g[0] < len(facts)]
    return {both[number].id for number in ordered(groups)}


def taken(groups: Groups, room: int) -> tuple[Groups, Groups]:
    """The first groups that fit into `room` facts, and the others, both in order.

    One that is larger than the room left is passed over.
    """
    some: Groups = []
    others: Groups = []
    for group in groups:
        fits = len(group) <= room
        (some if fits else others).append(group)
        room -= len(group) if fits else 0
    return some, others


def exactly(groups: Groups, count: int) -> tuple[Groups, Groups]:
    """As `taken`, `count` facts in all; or all of them, where there are fewer.

    Raises:
      UserError: that would cut a group in two.
    """
    some, others = taken(groups, count)
    got = sum(map(len, some))
    if got < count and others:
        more = got + len(others[0])
        raise UserError(
            f"{count} facts to be set apart, where records of the same fact stay"
            f" together: {got} fit, with the next fact's it would be {more}",
            "a number that needs no fact cut in two",
            f"take {f'{got} or {more}' if got else more}, or remove repeated records",
        )
    return some, others


def drawn(groups: Groups, seed: int | None) -> Groups:
    """Another order of them for every seed; without one, that of the source."""
    if seed is None:
        return groups
    return random.Random(f"{seed}/{len(groups)}").sample(groups, len(groups))


def held_out(
    groups: Groups, share: float, facts: Sequence[Fact], trained: Groups
) -> tuple[Groups, Groups]:
    """All but the last share of these facts, and those, rounded to whole groups.

    Nothing that is held out is about a subject of the `trained` or of those that
    are kept: what training does to a subject it does to all that is said of it.
    """
    about = lambda group: alike(facts[group[0]].subject)
    barred = {about(group) for group in trained}
    free: dict[str, Groups] = {}
    for group in groups:
        if about(group) not in barred:
            free.setdefault(about(group), []).append(group)
    total = len(ordered(groups))
    room = total - round(total * (1 - share))
    merged = [ordered(of_subject) for of_subject in free.values()]
    held, _ = taken(merged[::-1], room)
    numbers = set(ordered(held))
    return (
        [group for group in groups if group[0] not in numbers],
        [group for group in groups if group[0] in numbers],
    )


def cut(known: Sequence[tuple[Fact, float]], **splits: Groups) -> Facts:
    """The facts, each in the split that its group is in, in the order of the source."""
    return Facts(
        tuple(
            Known(known[number][0], split, known[number][1])
            for split, groups in splits.items()
            for number in ordered(groups)
        )
    )


def ordered(groups: Groups) -> list[int]:
    """The numbers of all their facts, ascending."""
    return sorted(number for group in groups for number in group)


def _accent(character: str) -> bool:
    kind = unicodedata.combining(character)
    return kind >= 200 or 10 <= kind <= 36
