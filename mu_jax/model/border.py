"""Plain arrays at the network's border, and the named ones inside.

Every kind of site has its axes, in one order. Query heads are one axis outside, and
(head_groups, query_heads) inside. On a mesh that does not divide the rows of a batch,
copies of its last row fill it up inside, and are cut off again.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from penzai import pz

from mu_jax.devices.sharding import Layout
from mu_jax.model.params import Named, Params
from mu_jax.model.specs import Spec
from mu_jax.model.taps import PER_HEAD, Patch
from mu_jax.types import Tensor

STREAM = ("batch", "seq", "embedding")
_GROUPED = ("head_groups", "query_heads")
AXES = {
    "query": ("seq", *_GROUPED, "projection"),
    "key": ("seq", "head_groups", "projection"),
    "value": ("seq", "head_groups", "projection"),
    "head": ("seq", *_GROUPED, "projection"),
    "attn": ("seq", "embedding"),
    "mlp_in": ("seq", "embedding"),
    "neuron": ("seq", "neurons"),
    "down": ("seq", "embedding"),
    "mlp": ("seq", "embedding"),
    "resid": ("seq", "embedding"),
}
_WEIGHTS = {"head": ("seq", *_GROUPED), "neuron": ("neurons",)}
"""The axes of a patch's weight behind `batch`, where they are not `seq` alone."""


@dataclasses.dataclass(frozen=True)
class Border:
    """What goes in and out of the network of one spec, on the devices of a layout."""

    spec: Spec
    layout: Layout | None

    @property
    def groups(self) -> tuple[int, int]:
        return self.spec.head_groups, self.spec.query_heads

    def filled(self, array: Any, axis: int = 0) -> Any:
        """The array with rows along `axis` for all devices alike."""
        if self.layout is None or array is None:
            return array
        return self.layout.filled(array, axis)

    def all_filled(self, tree: Params | None) -> Params | None:
        """The same of arrays whose axis is called `batch`; others stay as they are."""

        def fill(array: Named) -> Named:
            if self.layout is None or "batch" not in array.named_shape:
                return array
            rows = pz.nx.nmap(self.layout.filled)(array.untag("batch"))
            return rows.tag("batch").order_like(array)

        return tree and {label: fill(array) for label, array in tree.items()}

    def patches(self, patch: Mapping[str, Patch] | None) -> dict[str, tuple]:
        """{kind: a patch's weight and its donor}."""
        return {kind: self._wrapped(kind, one) for kind, one in (patch or {}).items()}

    def tags(self, arrays: Mapping[str, Tensor] | None) -> dict[str, Named]:
        """{kind: what was read, or is added, at sites of that kind}."""
        return {kind: self.tag(kind, array) for kind, array in (arrays or {}).items()}

    def _wrapped(self, kind: str, patch: Patch) -> tuple[Named, Named]:
        names = ("batch", *_WEIGHTS.get(kind, ("seq",)))
        weight = patch.weight
        if kind == "head":
            weight = weight.reshape(*weight.shape[:-1], *self.groups)
        cells = ("cell",) * (weight.ndim - 1 - len(names))
        weight = self.filled(weight, 1 + len(cells))
        weight = pz.nx.wrap(weight).tag("layer", *cells, *names)
        return weight, self.tag(kind, patch.donor)

    def tag(self, kind: str, array: Tensor) -> pz.nx.NamedArray:
        """The inverse of `unwrap`; [layer, embedding] has no other axes to name."""
        if array.ndim == 2:
            return pz.nx.wrap(array).tag("layer", "embedding")
        if kind in PER_HEAD:
            array = array.reshape(*array.shape[:3], *self.groups, -1)
        array = self.filled(array, 1)
        return pz.nx.wrap(array).tag("layer", "batch", *AXES[kind])

    def positions(self, tokens, valid, prefix: int = 0):
        """{batch?, seq} positions of the tokens behind the prefix, and of all keys.

        A row's positions count its real tokens; keys of padding stand at -1.
        """
        if tokens.ndim == 1:
            every = pz.nx.wrap(jnp.arange(len(tokens))).tag("seq")
            return every, every
        if valid is None:
            valid = jnp.ones(tokens.shape, bool)
        count = jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
        keys = jnp.where(valid, count, -1)
        name = lambda a: pz.nx.wrap(a).tag("batch", "seq")
        return name(count[:, prefix:]), name(keys)

    def stream(self, x: Named, rows: int, *cell: str) -> Array:
        """The plain stream of the batch's own rows."""
        return cut(x.unwrap(*cell, *STREAM), rows, axis=len(cell))

    def reads(self, reads: Params, rows: int) -> dict[str, Array]:
        """{kind: what was read, plain, of the batch's own rows}."""
        return {
            kind: cut(self.unwrap(kind, array), rows, axis=1)
            for kind, array in reads.items()
        }

    def own(self, memory: Params, rows: int) -> Params:
        """Named keys and values of the batch's own rows."""

        def kept(array: Named) -> Named:
            if array.named_shape["batch"] == rows:
                return array
            return array[{"batch": pz.slice[:rows]}].order_like(array)

        return {kind: kept(array) for kind, array in memory.items()}

    def unwrap(self, kind: str, array: Named) -> Array:
        """Plain, with the axes of a query head as one."""
        plain = array.unwrap("layer", "batch", *AXES[kind])
        if kind in PER_HEAD:
            plain = plain.reshape(*plain.shape[:3], self.spec.heads, -1)
        return plain


def cut(array: Array, rows: int, axis: int = 0) -> Array:
    """The first `rows` along an axis, which may be all."""
    if array.shape[axis] == rows:
        return array
    return jax.lax.slice_in_dim(array, 0, rows, axis=axis)
