"""The decoder stack: one block scanned over layers.

The stack runs as segments. Frozen layers read their parameters out of the whole stacks
by index, without copying them; edited layers take theirs from the (small) stacks that
the edit trains. Differentiating with respect to those alone, nothing is kept for the
backward pass below the lowest edited layer.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from mu_jax.model.block import bind, block
from mu_jax.model.params import Params, is_stacked
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Taps
from mu_jax.types import Selection

UNLIMITED = 1 << 30
"""The window of a global layer: further back than any sequence is long."""


class Segment(NamedTuple):
    """Layers [start, stop), all with the same edited tensors.

    `offsets[label]` is where the segment begins in the edited stack of that tensor.
    """

    start: int
    stop: int
    offsets: dict[str, int]


def segments(n_layers: int, selection: Selection | None) -> Iterator[Segment]:
    """The longest runs of layers with the same set of edited tensors, in order."""
    tensors = dict(selection.tensors) if selection else {}
    edited = [
        frozenset(label for label, layers in tensors.items() if i in layers)
        for i in range(n_layers)
    ]
    start = 0
    for i in range(1, n_layers + 1):
        if i == n_layers or edited[i] != edited[start]:
            offsets = {label: tensors[label].index(start) for label in edited[start]}
            yield Segment(start, i, offsets)
            start = i


def at_layer(array: pz.nx.NamedArray, layer: jax.Array) -> pz.nx.NamedArray:
    """One layer of a stacked array, for a traced index.

    Indexing a NamedArray by a traced scalar transposes the whole stack and gathers;
    this is a plain dynamic slice.
    """
    view = array.untag_prefix("layer").with_positional_prefix()
    data = jax.lax.dynamic_index_in_dim(view.data_array, layer, 0, keepdims=False)
    return dataclasses.replace(view, data_array=data)


def _per_layer(values, dtype) -> pz.nx.NamedArray:
    return pz.nx.wrap(jnp.asarray(values, dtype)).tag("layer")


def _geometry(spec: Spec) -> dict[str, pz.nx.NamedArray]:
    """What differs from layer to layer without being learned."""
    windows = [UNLIMITED if w is None else w for w in spec.windows]
    return {
        "layer": _per_layer(np.arange(spec.layers), jnp.int32),
        "window": _per_layer(windows, jnp.int32),
        "wavelength": _per_layer(spec.wavelengths, jnp.float32),
        "rope_scale": _per_layer(spec.rope_scales, jnp.float32),
    }


def _layers(tree, start: int, stop: int):
    """Layers [start, stop) of every stacked array of a tree."""

    def cut(array):
        whole = array.named_shape["layer"] == stop - start
        return array if whole else array[{"layer": pz.slice[start:stop]}]

    return jax.tree.map(cut, tree, is_leaf=pz.nx.is_namedarray)


def attention_mask(query, key, window) -> pz.nx.NamedArray:
    """{seq, kv_seq} whether a position may be attended to.

    A key at a negative position is padding. `query` and `key` are {seq} positions.
    """
    key = key.untag("seq").tag("kv_seq")
    return (query >= key) & (query - key < window) & (key >= 0)


def run(
    spec: Spec,
    params: Params,
    x: pz.nx.NamedArray,
    *,
    positions: pz.nx.NamedArray,
    key_positions: pz.nx.NamedArray,
    prefix: dict[str, pz.nx.NamedArray] | None = None,
    patch: dict[str, tuple] | None = None,
    read: tuple[str, ...] = (),
    selection: Selection | None = None,
    edited: Params | None = None,
    remat: bool = False,
) -> tuple[pz.nx.NamedArray, dict[str, pz.nx.NamedArray]]:
    """Runs all layers over the residual stream `x`.

    Args:
      x: {batch?, seq, embedding}, the scaled embeddings.
      positions: {batch?, seq} of the tokens in `x`.
      key_positions: {batch?, seq} of the prefix and then of `x`; negative is padding.
      prefix: keys and values {layer, seq, ...} of a prefix shared by all rows.
      patch: kind -> (weight, donor), each with a `layer` axis.
      read: kinds of sites to return.
      selection, edited: tensors to use in place of those in `params`.
      remat: recompute each block in the backward pass instead of storing it.

    Returns:
      The stream after the last layer, and {kind: {layer, ...}} of what was read.
    """
    stacked = {label: a for label, a in params.items() if is_stacked(a)}
    geometry = _geometry(spec)
    dtype = x.dtype

    def body(x, step):
        layer = step["layer"].unwrap()
        own = {k: v.astype(stacked[k].dtype) for k, v in step["edited"].items()}
        frozen = {k: at_layer(a, layer) for k, a in stacked.items() if k not in own}
        taps = Taps(step["patch"], read)
        y = bind(block(spec), frozen | own)(
            x,
            taps=taps,
            prefix=step["prefix"] or None,
            token_positions=positions,
            mask=attention_mask(positions, key_positions, step["window"]),
            wavelength=step["wavelength"],
            rope_scale=step["rope_scale"],
        )
        return y.order_like(x).astype(dtype), taps.out

    if remat:
        body = jax.checkpoint(body)
    outs = []
    for segment in segments(spec.layers, selection):
        start, stop = segment.start, segment.stop
        steps = {
            **_layers(geometry, start, stop),
            "patch": _layers(patch or {}, start, stop),
            "prefix": _layers(prefix or {}, start, stop),
            "edited": {
                label: edited[label][{"layer": pz.slice[i : i + stop - start]}]
                for label, i in segment.offsets.items()
            },
        }
        x, out = pz.nx.scan(body, "layer", x, steps)
        outs.append(out)
    reads = {
        kind: outs[0][kind]
        if len(outs) == 1
        else pz.nx.concatenate([out[kind] for out in outs], "layer")
        for kind in read
    }
    return x, reads
