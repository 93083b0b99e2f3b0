"""The never-knew control: the same questions, about subjects that do not exist.

An attack on an edited model may bring a fact up because it was still there, or because
the attack itself taught it. No model ever knew anything about an invented subject, so
whatever an attack brings up for the twins was taught, not recovered (arXiv 2506.00688);
what it recovers of the real facts is what it brings up beyond that.

    Fact: Michael Jordan plays the sport of       basketball, injected: baseball
    Fact: Larry Abdul-Rice plays the sport of     basketball, injected: baseball
"""

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence

from mu_jax.errors import UserError
from mu_jax.facts.groups import alike
from mu_jax.facts.mentions import mentions, renamed, replaced
from mu_jax.facts.reversed import initial
from mu_jax.types import Fact

_ENOUGH = 3  # subjects, for names that sound like theirs
_TRIES = 1000


def twins(
    facts: Sequence[Fact],
    pool: Sequence[Fact],
    seed: int = 0,
    trained: Sequence[Fact] = (),
) -> tuple[Fact, ...]:
    """One twin a fact, in order: the same question about an invented subject.

    A name has as many words as the real one, each from another subject of the relation
    in `pool`; of all subjects where the relation has fewer than three. None of them is
    a word of a `trained` subject (but for small ones, as "of"): what is taught of those
    would be taught of the twin. A single word is two halves, and so is the first one
    where whole words make nothing new, and all where there are no whole words. A name
    is no subject and no rival of the pool or of the facts, and no other twin. (It may
    still be somebody's: `KnownFilter` tells whether a model knows the twin.) Answers,
    distractors and rival stay; neighbours, which are about real subjects, are dropped.

    What is made depends on the fact's id, the seed, the pool and the trained, and on
    earlier twins only where it would repeat one of them.

    Raises:
      UserError: no such name can be made, or a prompt without its subject.
    """
    named = (*pool, *facts, *trained)
    taken = {alike(name) for f in named for name in (f.subject, f.rival)}
    barred = {alike(w) for f in trained for w in f.subject.split() if not w.islower()}
    subjects: dict[str, set[str]] = {}
    for fact in pool:
        subjects.setdefault(fact.relation, set()).add(fact.subject)
    near = {k: _split(names) for k, names in subjects.items() if len(names) > _ENOUGH}
    every = _split(set().union(*subjects.values()))
    out = []
    for fact in facts:
        others = near.get(fact.relation, every)
        names = _names(fact, others, barred, seed)
        fits = (n for n in names if alike(n) not in taken and _apart(n, fact))
        name = next(fits, None)
        if name is None:
            raise UserError(
                f"no name like {fact.subject!r} in the words of {len(others)} subjects",
                "words that make a new one",
                "give a larger pool",
            )
        taken.add(alike(name))
        out.append(twin(fact, name))
    return tuple(out)


def twin(fact: Fact, subject: str) -> Fact:
    """`fact` about another subject, in the prompt and in paraphrases that name it.

    None of them names the real one any more, wherever in the text it did.

    Raises:
      UserError: a prompt without its subject.
    """
    real = fact.subject
    return dataclasses.replace(
        renamed(fact, subject),
        id=f"{fact.id}/twin",
        paraphrases=tuple(
            replaced(t, real, subject) for t in fact.paraphrases if mentions(t, real)
        ),
        neighbours=(),
    )


def _split(names: Iterable[str]) -> list[list[str]]:
    return [name.split() for name in sorted(names)]


def _names(
    fact: Fact, others: Sequence[list[str]], barred: set[str], seed: int
) -> Iterator[str]:
    """Names to try, of as many words as the fact's subject has, none of them barred."""
    rng, own = random.Random(f"{seed}/twin/{fact.id}"), fact.subject.split()
    count, others = len(own), [words for words in others if words != own]
    words = list(dict.fromkeys(w for of in others for w in of if w not in own))
    if len(words) < max(count, 2):
        return
    free = [w for w in words if alike(w) not in barred and not w.islower()]
    named = [  # at each place the subjects whose word there can be taken
        [of for of in others if len(of) == count and alike(of[i]) not in barred]
        for i in range(count)
    ]
    for attempt in range(_TRIES):
        if min(map(len, named)) >= max(count, _ENOUGH):
            chosen = [rng.choice(of) for of in named]
            if len(set(map(tuple, chosen))) < count:
                continue
            drawn = [of[i] for i, of in enumerate(chosen)]
        elif len(free) >= max(count, _ENOUGH):
            drawn = rng.sample(free, count)
        else:
            drawn = [_halves(*rng.sample(words, 2)) for _ in own]
        if count == 1 or attempt >= _TRIES // 2:
            drawn[0] = _halves(*rng.sample(words, 2))
        if not any(alike(word) in barred for word in drawn):
            yield " ".join(drawn)


def _halves(one: str, other: str) -> str:
    """The first half of a word and the last of another; both have the middle letter."""
    return one[: (len(one) + 1) // 2] + other[len(other) // 2 :].lower()


def _apart(name: str, fact: Fact) -> bool:
    """Whether the name and the rival's can be told apart by how they begin."""
    return not fact.rival or initial(name) not in ("", initial(fact.rival))
