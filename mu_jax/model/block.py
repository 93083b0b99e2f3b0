"""One decoder block of Gemma 1, 2 or 3, or of Llama 3, of Penzai's parts.

The block holds parameter slots and no arrays: its parameters (`params.py` names them)
are bound layer by layer inside the scan (`stack.py`). Grouped, multi-query and
multi-head attention are one structure: `head_groups` times `query_heads`, either of
which may be 1.
"""

import functools
from collections.abc import Mapping

import jax
from penzai import pz

from mu_jax.model.layers import InFloat32, LowRank, Rope, SharedPrefix, Tap, Weights
from mu_jax.model.params import ends
from mu_jax.model.specs import Spec

MASKED = -2.3819763e38
"""What a masked attention logit is set to; finite, so that a row that may see nothing
(padding) gives a uniform mixture rather than NaN."""

_ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


def bind(
    layer: pz.nn.Layer, params: Mapping[str, pz.nx.NamedArray | pz.nx.NamedArrayView]
) -> pz.nn.Layer:
    """Fills the parameter slots of `layer`; `mlp/gate` fills `mlp/gate.weights`."""
    slots = pz.select(layer).at_instances_of(pz.ParameterSlot).get_sequence()
    labels = {
        slot.label: slot.label.removesuffix(".weights").removesuffix("/scale")
        for slot in slots
    }
    return pz.bind_variables(
        layer,
        [
            pz.ParameterValue(value=params[short], label=full, metadata={})
            for full, short in labels.items()
        ],
    )


def norm(name: str, axis: str, size: int, spec: Spec) -> pz.nn.Layer:
    """An RMS norm over one axis with a learned scale (not one plus the scale)."""
    with jax.ensure_compile_time_eval():  # its epsilon is an array, and is cached
        return InFloat32(
            pz.nn.RMSLayerNorm.from_config(
                name, None, across_axes={axis: size}, epsilon=spec.norm_epsilon
            )
        )


def _linear(name: str, inputs: dict[str, int], outputs: dict[str, int]) -> pz.nn.Layer:
    return pz.nn.Linear.from_config(name, None, inputs, outputs)


def _projections(spec: Spec) -> dict[str, list[pz.nn.Layer]]:
    """The chains that make a head's query, key and value of the normed stream."""
    stream = {"embedding": spec.embedding}
    key_axes = {"head_groups": spec.head_groups, "projection": spec.projection}
    query_axes = {"query_heads": spec.query_heads, **key_axes}

    def qk_norm(name):
        size = spec.projection
        return [norm(name, "projection", size, spec)] if spec.qk_norm else []

    return {
        "query": [
            _linear("attention/query", stream, query_axes),
            *qk_norm("attention/query_norm"),
            Rope(spec.rope_stretch),
            pz.nn.ConstantRescale(by=spec.query_scale),
        ],
        "key": [
            _linear("attention/key", stream, key_axes),
            *qk_norm("attention/key_norm"),
            Rope(spec.rope_stretch),
        ],
        "value": [_linear("attention/value", stream, key_axes)],
    }


def _output(spec: Spec) -> pz.nn.Layer:
    heads = {"head_groups": spec.head_groups, "query_heads": spec.query_heads}
    inputs = {**heads, "projection": spec.projection}
    return _linear("attention/output", inputs, {"embedding": spec.embedding})


def _attention(spec: Spec) -> pz.nn.Layer:
    project = _projections(spec)
    query = [*project["query"], Tap("query")]
    key = [*project["key"], Tap("key"), SharedPrefix("key")]
    value = [*project["value"], Tap("value"), SharedPrefix("value")]
    group, query_of, key_of = {"head_groups": "g"}, {"seq": "q"}, {"seq": "k"}
    mix = pz.nn.NamedEinsum(
        (
            {**query_of, **group, "query_heads": "h", "kv_seq": "k"},
            {**key_of, **group, "projection": "p"},
        ),
        {**query_of, **group, "query_heads": "h", "projection": "p"},
    )
    cap = spec.attention_softcap
    soften = [
        *([pz.nn.TanhSoftCap(cap)] if cap else []),
        pz.nn.ApplyExplicitAttentionMask("mask", MASKED),
        pz.nn.Softmax("kv_seq"),
    ]
    weigh: list[pz.nn.Layer] = [Weights(pz.nn.Sequential(soften))]
    output = [mix, Tap("head"), _output(spec)]
    return pz.nn.Attention(*map(pz.nn.Sequential, (query, key, value, weigh, output)))


def _mlp(spec: Spec) -> list[pz.nn.Layer]:
    stream, hidden = {"embedding": spec.embedding}, {"neurons": spec.neurons}
    activation = InFloat32(pz.nn.Elementwise(_ACTIVATIONS[spec.activation]))
    gate = pz.nn.Sequential([_linear("mlp/gate", stream, hidden), activation])
    return [
        pz.nn.BranchAndMultiplyTogether([gate, _linear("mlp/up", stream, hidden)]),
        Tap("neuron"),
        _linear("mlp/down", hidden, stream),
        Tap("down"),
    ]


@functools.cache
def block(spec: Spec, ranks: tuple[tuple[str, int], ...] = ()) -> pz.nn.Layer:
    """The block that every layer of `spec` shares; maps {seq, embedding} to the same.

    Side inputs: `mask` {seq, kv_seq}, `token_positions` {seq}, `wavelength`,
    `rope_scale`, and optionally `prefix` and `taps`.

    Args:
      ranks: (label, rank) of the matrices with a low-rank change beside them, whose
        factors are the parameters `LABEL.in` and `LABEL.out`.
    """
    if ranks:
        linear = pz.select(block(spec)).at_instances_of(pz.nn.Linear)
        return linear.apply(functools.partial(_changed, spec, dict(ranks)))

    attention = [
        *_stream_norm("pre_attention_norm", spec),
        _attention(spec),
        *_post_norm("attention", spec),
        Tap("attn"),
    ]
    mlp = [
        Tap("mlp_in"),
        *_stream_norm("pre_mlp_norm", spec),
        *_mlp(spec),
        *_post_norm("mlp", spec),
        Tap("mlp"),
    ]
    return pz.nn.Sequential(
        [
            pz.nn.Residual(pz.nn.Sequential(attention)),
            pz.nn.Residual(pz.nn.Sequential(mlp)),
            Tap("resid"),
        ]
    )


def _changed(spec: Spec, ranks: Mapping[str, int], linear: pz.nn.Linear) -> pz.nn.Layer:
    """The linear layer with a low-rank change beside it, if it is to have one."""
    label = linear.weights.label.removesuffix(".weights")
    if label not in ranks:
        return linear
    rank, (reads, writes) = {"rank": ranks[label]}, ends(spec, label)
    narrow = _linear(f"{label}.in", reads, rank)
    return LowRank(linear, narrow, _linear(f"{label}.out", rank, writes))


@functools.cache
def reader(spec: Spec, kind: str) -> pz.nn.Layer:
    """How the attention of a block reads the stream: {embedding} to a `kind` of site.

    `kind` is query, key or value; the same layers as in `block`, up to its tap.
    """
    return pz.nn.Sequential(
        [*_stream_norm("pre_attention_norm", spec), *_projections(spec)[kind]]
    )


@functools.cache
def writer(spec: Spec) -> pz.nn.Layer:
    """How the heads of a block write to the stream: all heads' sites to {embedding}."""
    return pz.nn.Sequential([_output(spec), *_post_norm("attention", spec)])


def _stream_norm(name: str, spec: Spec) -> list[pz.nn.Layer]:
    return [norm(name, "embedding", spec.embedding, spec)]


def _post_norm(branch: str, spec: Spec) -> list[pz.nn.Layer]:
    return _stream_norm(f"post_{branch}_norm", spec) if spec.post_norms else []
