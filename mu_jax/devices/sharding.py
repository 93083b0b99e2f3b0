"""Where arrays live: a mesh of devices, and one rule for each named axis.

    mesh axis   holds
    data        rows of a batch; every device along it has all of the weights
    fsdp        rows of a batch too, and a part of every weight, gathered layer by layer
                when it is used
    tensor      heads and neurons, of weights and activations alike

Arrays name their axes, so two tables say all: one for weights and one for activations.
An axis that the devices do not divide evenly stays whole (multi-query attention has one
head group: its query heads are spread instead), and no mesh axis is used twice in one
array. Rows of a batch are filled up until the devices divide them (see `filled`); the
prefix that all of them share is computed on every device that has rows. Embedding
tables are spread by vocabulary over fsdp and tensor together, and so are logits: a
table is never gathered.

XLA's partitioner does the rest (GSPMD; axes are of type Auto, which Penzai needs). On
several hosts the same program runs on all of them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from penzai import pz

from mu_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

Rules = Mapping[str, tuple[str, ...]]

WEIGHTS: Rules = {
    "vocabulary": ("fsdp", "tensor"),
    "head_groups": ("tensor",),
    "query_heads": ("tensor",),
    "neurons": ("tensor",),
    "embedding": ("fsdp",),
}
ACTIVATIONS: Rules = {
    "cell": (),
    "batch": ("data", "fsdp"),
    "head_groups": ("tensor",),
    "query_heads": ("tensor",),
    "neurons": ("tensor",),
}
LOGITS: Rules = {"vocabulary": ("fsdp", "tensor"), "0": ("data",)}
GATHERED: Rules = dict.fromkeys(("head_groups", "query_heads", "neurons"), ("tensor",))
"""Mesh axes for each named axis, the outermost first. Of logits "0" is the row. Weights
are GATHERED over fsdp where a layer uses them: left to itself, XLA may rather add up
parts of activations over the devices, again and again."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How many devices along each mesh axis; one of them may be -1: all that are left.

    Their product has to be the number of devices. Scores, selections and edits do not
    depend on it beyond rounding.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.astuple(self)
        if sizes.count(-1) > 1 or any(n < 1 and n != -1 for n in sizes):
            raise UserError(
                f"the mesh {self}", "sizes from 1, and -1 for at most one of them"
            )

    def __str__(self) -> str:
        pairs = zip(AXES, dataclasses.astuple(self), strict=True)
        return " x ".join(f"{axis} {n}" for axis, n in pairs)

    def fits(self, devices: int) -> bool:
        """Whether so many devices can be used in this way."""
        size = math.prod(dataclasses.astuple(self))
        return size == devices if size > 0 else devices % -size == 0

    def layout(self, devices: Any = None) -> "Layout":
        """This mesh over `devices` (by default all there are).

        Raises:
          UserError: their number is another.
        """
        devices = np.asarray(jax.devices() if devices is None else devices)
        sizes = list(dataclasses.astuple(self))
        if -1 in sizes:
            named = -int(np.prod(sizes))
            sizes[sizes.index(-1)] = devices.size // named or 1
        if np.prod(sizes) != devices.size:
            raise UserError(
                f"the mesh {self} on {devices.size} devices",
                "sizes whose product is the number of devices",
                "set --mesh.data, --mesh.fsdp and --mesh.tensor",
            )
        auto = (AxisType.Auto,) * len(AXES)
        placed = _placed(list(devices.flat), sizes)
        return Layout(jax.sharding.Mesh(placed, AXES, axis_types=auto))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every array lies on one mesh; hashable, a static argument of `jit`."""

    mesh: jax.sharding.Mesh

    def weights(self, shape: Mapping[str, int]) -> NamedSharding:
        """Where a parameter with these named axes, in this order, lives."""
        return self._sharding(shape, WEIGHTS)

    def __str__(self) -> str:
        return " x ".join(f"{axis} {n}" for axis, n in self.mesh.shape.items())

    @property
    def replicated(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def constrain(self, x: Any, rules: Rules = ACTIVATIONS) -> Any:
        """Inside a program: the NamedArray `x`, placed as `rules` say."""
        axes = tuple(x.named_shape)
        plain = jax.lax.with_sharding_constraint(
            x.unwrap(*axes), self._sharding(x.named_shape, rules)
        )
        return pz.nx.wrap(plain).tag(*axes)

    def rows(self, tree: Any, axis: int = 0) -> Any:
        """Host arrays whose axis number `axis` is `batch`, on the devices.

        Each process copies the rows of its own devices and no others.
        """

        def put(array):
            array = np.asarray(array)
            where = self.spread(array.shape, axis)
            return jax.make_array_from_callback(array.shape, where, array.__getitem__)

        return jax.tree.map(put, tree)

    def filler(self, rows: int, rules: Rules = ACTIVATIONS) -> int:
        """How many rows more make every device compute as few as it can.

        None where that is one row, or where the devices divide them.
        """
        axis = next(name for name in ("batch", "0") if name in rules)
        devices = math.prod(self.mesh.shape[name] for name in rules[axis])
        (each,) = self._sharding({axis: rows}, rules).shard_shape((rows,))
        return -rows % devices if each > -(-rows // devices) else 0

    def filled(self, array: Any, axis: int = 0, rules: Rules = ACTIVATIONS) -> Any:
        """Inside a program: the array with copies of its last row behind it.

        Whatever is made of them has to be cut off; nothing then depends on them, and
        their gradient is exactly 0.
        """
        more = self.filler(array.shape[axis], rules)
        if not more:
            return array
        widths = [(0, more if i == axis else 0) for i in range(array.ndim)]
        return jnp.pad(array, widths, mode="edge")

    def spread(self, shape: tuple[int, ...], axis: int = 0) -> NamedSharding:
        """Where an array lies whose axis number `axis` is `batch`."""
        names = ["batch" if i == axis else str(i) for i in range(len(shape))]
        return self._sharding(dict(zip(names, shape, strict=True)), ACTIVATIONS)

    def _sharding(self, shape: Mapping[str, int], rules: Rules) -> NamedSharding:
        used: set[str] = set()
        parts = []
        for axis, size in shape.items():
            chosen: tuple[str, ...] = ()
            for mesh_axis in rules.get(axis, ()):
                n = self.mesh.shape[mesh_axis]
                if n > 1 and mesh_axis not in used and size % n == 0:
                    chosen, size = (*chosen, mesh_axis), size // n
                    used.add(mesh_axis)
            parts.append(chosen or None)
        return NamedSharding(self.mesh, PartitionSpec(*parts))


def _placed(devices: list[Any], sizes: list[int]) -> np.ndarray:
    """The devices in a mesh whose neighbours are neighbours on the machine.

    As JAX knows each kind of TPU: axes, the last of which talks most, go along links of
    the torus. Of several slices, rows of batches are spread over them first.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if devices[0].platform != "tpu" or len(devices) == 1:
        return np.asarray(devices).reshape(sizes)
    if slices == 1:
        return mesh_utils.create_device_mesh(
            sizes, devices, allow_split_physical_axes=True
        )
    outer, left = [], slices
    for size in sizes:
        outer.append(math.gcd(size, left))
        left //= outer[-1]
    inner = [size // n for size, n in zip(sizes, outer, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(
        inner, outer, devices, allow_split_physical_axes=True
    )


def fetch(tree: Any, *, exact: bool = False) -> Any:
    """A tree of arrays as whole numpy arrays, on every process.

    All processes have to call it together, as they do everything else.

    Args:
      exact: leave bfloat16 as it is; otherwise it comes as float32, to compute with.
    """

    def get(array):
        if array.dtype == jnp.bfloat16 and not exact:
            array = array.astype(jnp.float32)  # numpy would compute in bfloat16
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if array.is_fully_replicated:
                return np.asarray(array.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(array, tiled=True))
        return np.asarray(array)

    return jax.tree.map(get, tree)
