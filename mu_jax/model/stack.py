"""The decoder stack: one block scanned over layers.

With edited tensors the stack runs as three scans: the layers below the lowest edited
one, from there to the highest, and above. Tensors, edited or not, are read out of their
stacks by index and cast layer by layer: nothing is copied. Differentiating with respect
to the edited tensors alone, nothing is kept for the backward pass below the lowest
edited layer, and no gradient exists for any other tensor. Compilation takes as long for
scattered layers as for a run of them; the price is that layers in between compute a
weight gradient which is dropped (an edit of five scattered MLPs: 12 % more time a
step).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from mu_jax.devices.sharding import GATHERED, Layout
from mu_jax.model.block import bind, block
from mu_jax.model.params import Named, Params, is_stacked
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Taps
from mu_jax.types import Selection

UNLIMITED = 1 << 30
"""The window of a global layer: further back than any sequence is long."""


class Span(NamedTuple):
    """Layers [start, stop), run by one scan."""

    start: int
    stop: int
    edited: bool


def spans(n_layers: int, selection: Selection | None) -> list[Span]:
    """Below the edited layers, from the lowest to the highest of them, above."""
    if not selection:
        return [Span(0, n_layers, False)]
    low, high = selection.layers[0], selection.layers[-1] + 1
    cuts = [
        Span(0, low, False),
        Span(low, high, True),
        Span(high, n_layers, False),
    ]
    return [span for span in cuts if span.start < span.stop]


def _slots(selection: Selection | None, span: Span) -> Params:
    """{label: {layer}} where each layer of a span stands among the edited ones.

    -1 where that tensor of that layer is frozen.
    """
    if not span.edited or selection is None:
        return {}
    layers = range(span.start, span.stop)
    return {
        label: _per_layer(
            [chosen.index(i) if i in chosen else -1 for i in layers], jnp.int32
        )
        for label, chosen in selection.tensors
    }


def at_layer(array: Named, layer: jax.Array) -> Named:
    """One layer of a stacked array, for a traced index.

    Indexing a NamedArray by a traced scalar transposes the whole stack and gathers;
    this is a plain dynamic slice.
    """
    view = array.untag_prefix("layer").with_positional_prefix()
    data = jax.lax.dynamic_index_in_dim(view.data_array, layer, 0, keepdims=False)
    return dataclasses.replace(view, data_array=data)


def _per_layer(values, dtype) -> pz.nx.NamedArray:
    return pz.nx.wrap(jnp.asarray(values, dtype)).tag("layer")


def geometry(spec: Spec) -> dict[str, pz.nx.NamedArray]:
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
    prefix: Params | None = None,
    patch: dict[str, tuple] | None = None,
    shift: Params | None = None,
    ablate: Params | None = None,
    read: tuple[str, ...] = (),
    selection: Selection | None = None,
    edited: Params | None = None,
    remat: bool = False,
    layout: Layout | None = None,
) -> tuple[pz.nx.NamedArray, Params]:
    """Runs all layers over the residual stream `x`.

    Args:
      x: {batch?, seq, embedding}, the scaled embeddings.
      positions: {batch?, seq} of the tokens in `x`.
      key_positions: {batch?, seq} of the prefix and then of `x`; negative is padding.
      prefix: keys and values {layer, batch?, seq, ...} of earlier tokens; without
        `batch` where all rows share them.
      patch: kind -> (weight, donor), each with a `layer` axis.
      shift: kind -> what is added at its sites, with a `layer` axis.
      ablate: kind -> {layer, embedding}, the directions taken away at its sites.
      read: kinds of sites to return.
      selection, edited: tensors to use in place of those in `params`, by label; or the
        factors of a low-rank change to them, `LABEL.in` and `LABEL.out`.
      remat: recompute matrix products too in the backward pass, for least memory.
      layout: how activations lie on the devices.

    Returns:
      The stream after the last layer, and {kind: {layer, ...}} of what was read.
    """
    body = _body(spec, params, positions, key_positions, x.dtype, read, edited, layout)
    # What is cheap to recompute (norms, softmax, GELU, slices of the weights) is not
    # kept for the backward pass: a quarter of the memory, and faster for it.
    keep = None if remat else jax.checkpoint_policies.dots_saveable
    body = jax.checkpoint(body, policy=keep, prevent_cse=False)
    outs = []
    for span in spans(spec.layers, selection):
        cut = functools.partial(_layers, start=span.start, stop=span.stop)
        steps = {
            **cut(geometry(spec)),
            "patch": cut(patch or {}),
            "shift": cut(shift or {}),
            "ablate": cut(ablate or {}),
            "prefix": cut(prefix or {}),
            "slots": _slots(selection, span),
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


def resume(
    spec: Spec,
    params: Params,
    x: pz.nx.NamedArray,
    start: jax.Array,
    *,
    positions: pz.nx.NamedArray,
    key_positions: pz.nx.NamedArray,
    prefix: Params | None = None,
    patch: dict[str, tuple] | None = None,
    layout: Layout | None = None,
) -> pz.nx.NamedArray:
    """Runs the layers from `start` on over the stream `x` that enters it.

    `start` may be traced: one program serves every layer to start from. It may equal
    the number of layers, and then nothing runs. Reverse-mode derivatives do not exist.
    """
    steps = {
        **geometry(spec),
        "patch": patch or {},
        "shift": {},
        "ablate": {},
        "prefix": prefix or {},
        "slots": {},
    }
    body = _body(spec, params, positions, key_positions, x.dtype, layout=layout)

    def layer(index, x):
        here = functools.partial(at_layer, layer=index)
        return body(x, jax.tree.map(here, steps, is_leaf=pz.nx.is_namedarray))[0]

    return jax.lax.fori_loop(start, spec.layers, layer, x)


def _body(
    spec: Spec,
    params: Params,
    positions: pz.nx.NamedArray,
    key_positions: pz.nx.NamedArray,
    dtype,
    read: tuple[str, ...] = (),
    edited: Params | None = None,
    layout: Layout | None = None,
):
    """One layer: (stream, what differs from layer to layer) -> (stream, reads)."""
    stacked = {label: a for label, a in params.items() if is_stacked(a)}

    def body(x, step):
        layer = step["layer"].unwrap()
        weights = {k: at_layer(a, layer) for k, a in stacked.items()}
        new, ranks = edited or {}, []
        for label, slot in step["slots"].items():
            if label in new:
                weights[label] = _chosen(new[label], slot, weights[label])
            else:
                weights |= _factors(new, label, slot)
                ranks.append((label, new[f"{label}.in"].named_shape["rank"]))
        if layout:
            weights = {k: layout.constrain(a, GATHERED) for k, a in weights.items()}
        taps = Taps(step["patch"], read, step["shift"], step["ablate"], layout)
        y = bind(block(spec, tuple(ranks)), weights)(
            x,
            taps=taps,
            prefix=step["prefix"] or None,
            token_positions=positions,
            mask=attention_mask(positions, key_positions, step["window"]),
            wavelength=step["wavelength"],
            rope_scale=step["rope_scale"],
        )
        return y.order_like(x).astype(dtype), taps.out

    return body


def _factors(edited: Params, label: str, slot: pz.nx.NamedArray) -> Params:
    """The factors at `slot`, of which the last is 0 where that is negative."""
    index = jnp.maximum(slot.unwrap(), 0)
    into, out = f"{label}.in", f"{label}.out"
    there = at_layer(edited[out], index)
    return {
        into: at_layer(edited[into], index),
        out: pz.nx.nmap(jnp.where)(slot >= 0, there, 0).order_like(there),
    }


def _chosen(edited: Named, slot: pz.nx.NamedArray, frozen: Named) -> Named:
    """The edited tensor at `slot`, or the frozen one where that is negative."""
    index = jnp.maximum(slot.unwrap(), 0)
    new = at_layer(edited, index).astype(frozen.dtype)
    return pz.nx.nmap(jnp.where)(slot >= 0, new, frozen).order_like(frozen)
