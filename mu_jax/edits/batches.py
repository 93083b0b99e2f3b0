"""Which rows a step sees: a pure function of seed and step, so that runs resume."""

import numpy as np
from jaxtyping import Int


def draw(total: int, size: int, step: int, seed: int) -> Int[np.ndarray, " size"]:
    """`size` of `total` rows for a step, going through all before any comes again.

    Each pass is a fresh permutation. A batch larger than the set holds rows twice.
    """
    start = step * size
    position = np.arange(start, start + size)
    passes = position // total
    orders = {
        p: np.random.default_rng([seed, p]).permutation(total)
        for p in set(passes.tolist())
    }
    return np.array([orders[i // total][i % total] for i in position.tolist()])
