"""Taps: the places of a block that can be read, and moved towards a donor.

A patch moves the activation at a site by

    x  <-  x + weight * (donor - x)

with one weight per (layer, row, position) and, for heads, per head. Weight 0 leaves the
run as it is, weight 1 puts the donor in its place, and the derivative with respect to
the weight at 0 is attribution patching. A shift adds an array to the activation; the
derivative with respect to it, at 0, is the gradient at the site. An ablation takes the
activation's component along a unit vector d away,

    x  <-  x - (x . d) d

computed in float32 at least; where d is 0 nothing changes.

Whatever is worth reading is worth placing: on several devices the taps are also where
activations are told how to lie on the mesh, so that XLA has nothing to guess.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from penzai import pz

from mu_jax.devices.sharding import Layout
from mu_jax.model.precision import EXACT

KINDS = (
    "query",
    "key",
    "value",
    "head",
    "attn",
    "mlp_in",
    "neuron",
    "down",
    "mlp",
    "resid",
)
"""In the order of the computation: `query`, `key` and `value` as attention uses them,
`head` (each head's output before the output projection), `attn` (what the branch adds
to the residual stream, after its post-norm where there is one), `mlp_in` (what the MLP
branch reads of the stream, before its norm), `neuron` (the hidden units of the MLP),
`down` (what its down projection writes, before the post-norm; without one the same as
`mlp`), `mlp` (what the branch adds, like `attn`), `resid` (the block's output)."""

PER_HEAD = ("query", "head")
"""Kinds of which each query head has one (key and value: each head group)."""


class Patch(NamedTuple):
    """How one kind of site is moved, in every layer at once.

    weight: [layer, batch, seq]; for `head` [layer, batch, seq, head]; for `neuron`
        [layer, batch, neurons], all positions together. An axis `cell` behind `layer`
        stands for several patched runs at once (see `Network.resume`).
    donor:  [layer, batch, seq, embedding]; for `query` and `head` [..., head,
        projection], for `key` and `value` [..., group, projection], for `neuron`
        [..., neurons]
    """

    weight: Float[Array, "layer batch *where"]
    donor: Float[Array, "layer batch seq *site"]


def weight_shape(kind: str, donor: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the weight that moves sites of a kind to a donor of that shape."""
    if kind == "neuron":
        return (*donor[:2], donor[-1])
    return donor[: 4 if kind == "head" else 3]


class Taps:
    """What the taps of one call of one block do; lives while that call is traced."""

    def __init__(
        self,
        patch: Mapping[str, tuple] | None = None,
        read=(),
        shift: Mapping[str, pz.nx.NamedArray] | None = None,
        ablate: Mapping[str, pz.nx.NamedArray] | None = None,
        layout: Layout | None = None,
    ):
        self.patch, self.read = patch or {}, frozenset(read)
        self.shift, self.ablate, self.layout = shift or {}, ablate or {}, layout
        self.out: dict[str, pz.nx.NamedArray] = {}

    def __call__(self, kind: str, x: pz.nx.NamedArray) -> pz.nx.NamedArray:
        if self.layout:
            x = self.layout.constrain(x)
        if kind in self.patch:
            weight, donor = self.patch[kind]
            x = (x + weight * (donor - x)).order_like(x).astype(x.dtype)
        if kind in self.shift:
            x = (x + self.shift[kind]).order_like(x).astype(x.dtype)
        if kind in self.ablate:
            x = without(x, self.ablate[kind])
        if kind in self.read:
            self.out[kind] = x
        return x


def without(x: pz.nx.NamedArray, direction: pz.nx.NamedArray) -> pz.nx.NamedArray:
    """`x` without its component along `direction` {embedding}, a unit vector or 0."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y, d = x.astype(wide), direction.astype(wide)
    dot = functools.partial(jnp.vdot, precision=EXACT)
    along = pz.nx.nmap(dot)(y.untag("embedding"), d.untag("embedding"))
    return (y - along * d).order_like(x).astype(x.dtype)
