"""Which prompts scores are of."""

import numpy as np

from mu_jax.facts.corrupt import GaussianNoise, OtherSubject
from mu_jax.localizers.patching import fingerprint
from mu_jax.types import Prompts


def made(*rows, width=4) -> Prompts:
    tokens = np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)
    valid = np.array([[i < len(row) for i in range(width)] for row in rows])
    none = np.zeros(len(rows), np.int32)
    return Prompts(tokens, valid, valid & False, none, none, none[:, None])


def test_prompts_are_told_apart_and_padding_is_not():
    clean, corrupt = made([1, 2, 3], [1, 4]), made([1, 5, 3], [1, 6])
    how = OtherSubject()
    same = fingerprint(clean, corrupt, how)
    wide = made([1, 2, 3], [1, 4], width=9), made([1, 5, 3], [1, 6], width=9)
    assert fingerprint(*wide, how) == same
    others = [
        (clean, clean, how),
        (corrupt, clean, how),
        (clean.rows(slice(1)), corrupt.rows(slice(1)), how),
        (made([1, 2], [3, 1, 4]), made([1, 5], [3, 1, 6]), how),
        (clean, corrupt, GaussianNoise()),
        (clean, corrupt, GaussianNoise(seed=1)),
    ]
    assert len({same, *(fingerprint(*other) for other in others)}) == 7
