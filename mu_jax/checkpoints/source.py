"""Checkpoints as sources of parts: every parameter goes straight into its shards.

A host reads what its own devices hold, one layer of one parameter at a time, so that
it never has more in memory than its shards, one of them twice (on its way to the
device), and one layer of the matrix being read.
"""

import dataclasses
from typing import Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from mu_jax.checkpoints.matrix import Index, lengths
from mu_jax.devices.sharding import Layout
from mu_jax.errors import UserError
from mu_jax.model.params import Params, dtype_of, name_axes, shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, Tokenizer, silent

DTYPES = ("float32", "bfloat16")


class Source(Protocol):
    """A whole checkpoint, checked: its names and shapes are those of its spec."""

    @property
    def spec(self) -> Spec: ...

    @property
    def digest(self) -> str:
        """Names the content; equal for equal weights of the same origin."""
        ...

    def tokenizer(self) -> Tokenizer: ...

    def part(self, label: str, layer: int | None, index: Index) -> np.ndarray:
        """One layer of a parameter, its axes as in `params.shapes`, cut by `index`.

        `layer` is None for what has no layers. Norm scales are as they multiply;
        the dtype is float32 or that of the file.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Memory:
    """Parameters that are already in memory, as a source."""

    spec: Spec
    params: Params
    words: Tokenizer
    digest: str

    def tokenizer(self) -> Tokenizer:
        return self.words

    def part(self, label: str, layer: int | None, index: Index) -> np.ndarray:
        whole = np.asarray(self.params[label].unwrap(*shapes(self.spec)[label]))
        return (whole if layer is None else whole[layer])[index]


def place(
    source: Source,
    layout: Layout | None = None,
    dtype: str = "float32",
    progress: Progress = silent,
) -> Params:
    """The parameters of a source, where `layout` puts them.

    Args:
      dtype: of the matrices (see `params.dtype_of`).
      layout: None puts all of them on the default device.

    Raises:
      UserError: a dtype that weights are not kept in.
    """
    if dtype not in DTYPES:
        raise UserError(f"the dtype {dtype!r}", " or ".join(DTYPES))
    params: Params = {}
    named = shapes(source.spec)
    for i, (label, shape) in enumerate(named.items()):
        progress(f"loading {label}", i, len(named))
        where = layout.weights(shape) if layout else None
        array = _array(source, label, where, dtype)
        params[label] = name_axes(label, array, source.spec)
    return params


def _array(
    source: Source, label: str, where: NamedSharding | None, dtype: str
) -> jax.Array:
    """One parameter; a shard that several devices hold is read once."""
    shape = tuple(shapes(source.spec)[label].values())
    if where is None:
        whole = (slice(None),) * len(shape)
        return jax.device_put(_shard(source, label, whole, dtype))
    homes: dict[tuple, tuple[Index, list]] = {}
    for device, index in where.addressable_devices_indices_map(shape).items():
        index = index or ()
        key = tuple(cut.indices(n) for cut, n in zip(index, shape, strict=True))
        homes.setdefault(key, (index, []))[1].append(device)
    shards = []
    for index, devices in homes.values():
        value = _shard(source, label, index, dtype)
        # Waiting keeps no more than one shard on the host.
        shards += jax.block_until_ready([jax.device_put(value, d) for d in devices])
    return jax.make_array_from_single_device_arrays(shape, where, shards)


def _shard(source: Source, label: str, index: Index, dtype: str) -> np.ndarray:
    """The part `index` of a parameter, read layer by layer."""
    shape = shapes(source.spec)[label]
    sizes = tuple(shape.values())
    out = _empty(lengths(sizes, index), dtype_of(label, dtype))
    if "layer" not in shape:
        out[...] = source.part(label, None, index)
        return out
    for i, layer in enumerate(range(*index[0].indices(sizes[0]))):
        out[i] = source.part(label, layer, index[1:])
    return out


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins where jax on a CPU can take it over without a copy."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)
