"""How far rounding alone takes a float32 network: how float32 adds up is the machine's.

Laws are decided in float64. Where a test compares float32 numbers of whole networks, it
is to this bound, which follows from the network and the size of its numbers.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
STEPS = 8
"""Sums that stand one behind another in a layer: norms, products, softmax."""


def slack(size: float, layers: int, terms: int) -> float:
    """The most that two orders of summing up may differ by, of numbers up to `size`.

    A sum of n terms is rounded n times, each time by at most half an epsilon of the
    largest number. Signs fall as they may, so errors add up as their root: over
    `layers` layers of `STEPS` sums of `terms` terms, to √(layers · STEPS · terms). Two
    runs have one such error each, and twice the spread is allowed.
    """
    spread = EPSILON / 2 * size * np.sqrt(layers * STEPS * terms)
    return float(2 * np.sqrt(2) * spread)


def network(spec, size: float) -> float:
    """`slack` of the whole network of a spec."""
    return slack(size, spec.layers, max(spec.embedding, spec.neurons))


def double(model):
    """The model in float64, for laws; to be called under `float64`."""
    params = {label: a.astype(jnp.float64) for label, a in model.params.items()}
    return dataclasses.replace(model, params=params)
