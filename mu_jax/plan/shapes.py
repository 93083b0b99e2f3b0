"""A run's arrays as shapes on a layout: what its programs are lowered with."""

import dataclasses
import functools
import math
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
from penzai import pz

from mu_jax.devices.sharding import Layout
from mu_jax.model.network import Network
from mu_jax.model.params import Params, dtype_of, shapes
from mu_jax.model.precision import Precision
from mu_jax.model.specs import Spec
from mu_jax.plan.costs import Spread
from mu_jax.plan.lengths import Lengths
from mu_jax.types import Prompts

Struct: Any = jax.ShapeDtypeStruct
"""Stands in for arrays, and is typed as one where they are asked for."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Of one model in one dtype on one layout; no memory is taken."""

    spec: Spec
    layout: Layout
    dtype: Any
    precision: Precision = "highest"

    @property
    def network(self) -> Network:
        return Network(self.spec, self.layout, self.precision)

    @property
    def spread(self) -> Spread:
        return Spread(self.layout)

    @functools.cached_property
    def params(self) -> Params:
        """The whole model, each weight where it lives."""
        return {
            label: self.weight(label, shape)
            for label, shape in shapes(self.spec).items()
        }

    def weight(self, label: str, shape: dict[str, int]) -> pz.nx.NamedArray:
        where, dtype = self.layout.weights(shape), dtype_of(label, self.dtype)
        struct = Struct(tuple(shape.values()), dtype, sharding=where)
        axes: Any = OrderedDict(shape)
        return pz.nx.NamedArray(named_axes=axes, data_array=struct)

    def rows(self, shape: tuple[int, ...], dtype: Any = None, axis: int = 0) -> Any:
        """An array whose axis `axis` is spread as rows are."""
        where = self.layout.spread(shape, axis)
        return Struct(shape, dtype or self.dtype, sharding=where)

    def prompts(self, rows: int, length: Lengths) -> Prompts:
        """A batch as the host hands it over: nothing says where it lies."""
        wide, each = (rows, length.width), (rows,)
        return Prompts(
            Struct(wide, jnp.int32),
            Struct(wide, bool),
            Struct(wide, bool),
            Struct(each, jnp.int32),
            Struct(each, jnp.int32),
            Struct((rows, length.options), jnp.int32),
        )


def bytes_a_device(tree: Any) -> int:
    """Of a tree of placed shapes, on the device that has most of them."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        where = getattr(leaf, "sharding", None)
        shape = where.shard_shape(leaf.shape) if where else leaf.shape
        total += math.prod(shape) * leaf.dtype.itemsize
    return total
