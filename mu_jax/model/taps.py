"""Taps: the places of a block that can be read, and moved towards a donor.

A patch moves the activation at a site by

    x  <-  x + weight * (donor - x)

with one weight per (layer, row, position) and, for heads, per head. Weight 0 leaves the
run as it is, weight 1 puts the donor in its place, and the derivative with respect to
the weight at 0 is attribution patching.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array, Float
from penzai import pz

KINDS = ("key", "value", "head", "attn", "mlp", "resid")
"""In the order of the computation: `key` and `value` before attention, `head` (each
head's output before the output projection), `attn` and `mlp` (what the branch adds to
the residual stream, after its post-norm where there is one), `resid` (the block's
output)."""


class Patch(NamedTuple):
    """How one kind of site is moved, in every layer at once.

    weight: [layer, batch, seq], for heads [layer, batch, seq, head]
    donor:  [layer, batch, seq, embedding], for heads [..., head, projection]
    """

    weight: Float[Array, "layer batch seq *head"]
    donor: Float[Array, "layer batch seq *site"]


class Taps:
    """What the taps of one call of one block do; lives while that call is traced."""

    def __init__(self, patch: Mapping[str, tuple] | None = None, read=()):
        self.patch, self.read = patch or {}, frozenset(read)
        self.out: dict[str, pz.nx.NamedArray] = {}

    def __call__(self, kind: str, x: pz.nx.NamedArray) -> pz.nx.NamedArray:
        if kind in self.patch:
            weight, donor = self.patch[kind]
            x = (x + weight * (donor - x)).order_like(x).astype(x.dtype)
        if kind in self.read:
            self.out[kind] = x
        return x
