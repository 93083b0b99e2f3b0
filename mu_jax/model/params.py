"""The parameters of a network: a flat dict from label to NamedArray.

    embedder                      [vocabulary, embedding]   (Gemma: unembedding too)
    unembedder                    [vocabulary, embedding]   (Llama 3, untied)
    final_norm                    [embedding]

and, stacked over `layer`:

    attention/query               [head_groups, query_heads, embedding, projection]
    attention/key, value          [head_groups, embedding, projection]
    attention/output              [head_groups, query_heads, projection, embedding]
    attention/query_norm, key_norm  [projection]            (Gemma 3)
    mlp/gate, up                  [embedding, neurons]
    mlp/down                      [neurons, embedding]
    pre_attention_norm, pre_mlp_norm    [embedding]
    post_attention_norm, post_mlp_norm  [embedding]         (Gemma 2 and 3)

Norm scales multiply as they are: a checkpoint that stores w for (1 + w) is converted
when it is read. They stay float32 in a bfloat16 model too, where 1 + w would lose w.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from penzai import pz

from mu_jax.errors import UserError
from mu_jax.model.specs import Spec
from mu_jax.types import Sizes

Named = pz.nx.NamedArray | pz.nx.NamedArrayView
"""A named array; a view is one whose axes stand in another order."""

Params = dict[str, Named]

ATTENTION = ("attention/query", "attention/key", "attention/value", "attention/output")
MLP = ("mlp/gate", "mlp/up", "mlp/down")

_SUMMED = {
    "attention/output": ("head_groups", "query_heads", "projection"),
    "mlp/down": ("neurons",),
}


def summed(label: str) -> tuple[str, ...]:
    """The axes over which a matrix multiplies what it reads; tables are read too."""
    return _SUMMED.get(label, ("embedding",))


def shapes(spec: Spec) -> dict[str, dict[str, int]]:
    """The named shape of every parameter of `spec`, axes in storage order."""
    stream = {"embedding": spec.embedding}
    projection = {"projection": spec.projection}
    groups = {"head_groups": spec.head_groups}
    heads = {**groups, "query_heads": spec.query_heads}
    hidden = {"neurons": spec.neurons}
    stacked = {
        "attention/query": {**heads, **stream, **projection},
        "attention/key": {**groups, **stream, **projection},
        "attention/value": {**groups, **stream, **projection},
        "attention/output": {**heads, **projection, **stream},
        "mlp/gate": {**stream, **hidden},
        "mlp/up": {**stream, **hidden},
        "mlp/down": {**hidden, **stream},
        "pre_attention_norm": stream,
        "pre_mlp_norm": stream,
    }
    if spec.qk_norm:
        stacked |= {f"attention/{n}_norm": projection for n in ("query", "key")}
    if spec.post_norms:
        stacked |= {f"post_{n}_norm": stream for n in ("attention", "mlp")}
    layer, table = {"layer": spec.layers}, {"vocabulary": spec.vocabulary, **stream}
    return {
        "embedder": table,
        **({} if spec.tied else {"unembedder": table}),
        "final_norm": stream,
        **{label: {**layer, **shape} for label, shape in stacked.items()},
    }


def ends(spec: Spec, label: str) -> tuple[dict[str, int], dict[str, int]]:
    """The axes, of one layer, that a matrix reads, and those that it writes."""
    shape = {a: n for a, n in shapes(spec)[label].items() if a != "layer"}
    reads = {axis: shape.pop(axis) for axis in summed(label)}
    return reads, shape


def is_stacked(array: Named) -> bool:
    """Whether a parameter has one slice a layer."""
    return "layer" in array.named_shape


def dtype_of(label: str, dtype: Any) -> np.dtype:
    """In what a parameter is kept by a model whose matrices are `dtype`."""
    wide = jnp.promote_types(dtype, jnp.float32)
    return np.dtype(wide if label.endswith("norm") else dtype)


def name_axes(label: str, value, spec: Spec) -> pz.nx.NamedArray:
    """Wraps a plain array in storage order as the parameter `label`."""
    return pz.nx.wrap(value).tag(*shapes(spec)[label])


def sizes(spec: Spec) -> Sizes:
    """Parameters a layer of each tensor of attention and MLP, and of the whole model.

    Only these tensors can be selected for an edit; embeddings and norms never are
    (method §1).
    """
    counts = {label: math.prod(shape.values()) for label, shape in shapes(spec).items()}
    return Sizes(
        layers=spec.layers,
        tensors={label: counts[label] // spec.layers for label in (*ATTENTION, *MLP)},
        model=sum(counts.values()),
    )


def random(spec: Spec, seed: int, dtype=jnp.float32) -> Params:
    """Random parameters, scaled so that activations and logits stay near one.

    Drawn by numpy: nothing compiles, and every backend gets the same bits. Heads are
    drawn behind `embedding`, wherever that axis is stored.
    """
    rng, params = np.random.default_rng(seed), {}
    for label, shape in shapes(spec).items():
        order = list(shape)
        if label in ATTENTION[:3]:
            order.sort(key=lambda axis: axis not in ("layer", "embedding"))
        draw = rng.standard_normal([shape[axis] for axis in order], np.float32)
        draw = draw.transpose([order.index(axis) for axis in shape])
        if label.endswith("norm"):
            value = 1 + 0.1 * draw
        elif label in ("embedder", "unembedder"):
            value = draw * spec.embedding**-0.5
        else:
            inside = [
                n for axis, n in shape.items() if axis not in ("layer", "embedding")
            ]
            writes = label in ("attention/output", "mlp/down")
            value = draw * (math.prod(inside) if writes else spec.embedding) ** -0.5
        params[label] = name_axes(
            label, jnp.asarray(value, dtype_of(label, dtype)), spec
        )
    return params


def take(params: Params, tensors: Mapping[str, tuple[int, ...]]) -> Params:
    """The given layers of the given stacked tensors, as new arrays.

    Raises:
      UserError: one that is not there; indexing would take another in its place.
    """
    _check(params, tensors)
    return {
        label: params[label][
            {"layer": pz.nx.wrap(np.asarray(layers)).tag("layer")}
        ].order_as(*params[label].named_shape)
        for label, layers in tensors.items()
    }


def put(params: Params, tensors: Mapping[str, tuple[int, ...]], new: Params) -> Params:
    """`params` with those layers of those tensors replaced, cast to what they were.

    Leaves `params` as it is; tensors that are not named are shared, not copied.

    Raises:
      UserError: one that is not there; it would be dropped unseen.
    """
    _check(params, tensors)
    out = dict(params)
    for label, layers in tensors.items():
        old = params[label]
        rest = [axis for axis in old.named_shape if axis != "layer"]
        value = old.unwrap("layer", *rest)
        fresh = new[label].unwrap("layer", *rest).astype(value.dtype)
        value = value.at[np.asarray(layers)].set(fresh)
        out[label] = pz.nx.wrap(value).tag("layer", *rest).order_as(*old.named_shape)
    return out


def _check(params: Params, tensors: Mapping[str, tuple[int, ...]]) -> None:
    for label, layers in tensors.items():
        there = params[label].named_shape.get("layer", 0) if label in params else 0
        for layer in layers:
            if not 0 <= layer < there:
                raise UserError(
                    f"layer {layer} of {label!r}",
                    f"one of the {there} layers of it that the model has",
                    "the selection is of another model: select again",
                )
