"""Hugging Face's `config.json` to a spec: Gemma 1, 2 and 3, and Llama 3.

Published multimodal configs leave out what equals the defaults of transformers, so
those are known here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mu_jax.checkpoints.fields import LAYERS, Fields
from mu_jax.checkpoints.huggingface import rope as rotary
from mu_jax.errors import UserError
from mu_jax.model.releases import SPECS
from mu_jax.model.specs import Spec, gemma1, gemma2, gemma3, llama3

TYPES = ("gemma", "gemma2", "gemma3_text", "gemma3", "llama")

_GEMMA = {"head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
_LATER = {
    **_GEMMA,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {**_GEMMA, "max_position_embeddings": 8192, "vocab_size": 256_000},
    "gemma2": {
        **_LATER,
        "vocab_size": 256_000,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_LATER,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
    },
    "llama": {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
}
_ACTIVATIONS = {"gemma": ("gelu_pytorch_tanh", "gelu"), "llama": ("silu",)}
"""By type, else the tanh approximation alone. Gemma 1 was published as `gelu` and is
run with that approximation everywhere."""
_NULLS = ("attn_logit_softcapping", "final_logit_softcapping")
"""Keys where null means none, and not the default."""
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def spec(config: Mapping[str, Any], name: str) -> Spec:
    """The spec that a `config.json` describes, under its published name if it has one.

    Raises:
      UserError: another kind of model, a missing or absurd value, or a feature that
        the network does not have; each is named.
    """
    kind = config.get("model_type")
    if kind not in TYPES:
        raise UserError(
            f"{name} has the model_type {repr(kind)[:60]}",
            f"one of {', '.join(TYPES)}",
            "take a Gemma 1, 2 or 3, or a Llama 3",
        )
    if kind == "gemma3":
        inner = config.get("text_config")
        if not isinstance(inner, Mapping):
            raise UserError(f"{name}: config.json has no text_config", "a Gemma 3")
        outer = {k: config[k] for k in ("tie_word_embeddings",) if k in config}
        config, kind = {**inner, **outer}, "gemma3_text"
    given = {k: v for k, v in config.items() if v is not None or k in _NULLS}
    remedy = "fetch the checkpoint's own config.json, or take another model"
    fields = Fields(f"{name}, config.json", _DEFAULTS[kind] | given, remedy=remedy)
    _refuse_features(fields, kind)
    found = _llama(fields, name) if kind == "llama" else _gemma(fields, name, kind)
    return _published(found)


def _published(found: Spec) -> Spec:
    """The row of the table of specs that differs in name only, or `found` itself."""
    for row in SPECS.values():
        if dataclasses.replace(found, name=row.name) == row:
            return row
    return found


def _refuse_features(fields: Fields, kind: str) -> None:
    """Raises UserError for what the network cannot do."""
    for key in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
        fields.choice(key, (False,), False)
    known = _ACTIVATIONS.get(kind, ("gelu_pytorch_tanh",))
    for key in ("hidden_act", "hidden_activation"):
        fields.choice(key, known, known[0])
    fields.choice("tie_word_embeddings", (True, False) if kind == "llama" else (True,))


def _sizes(fields: Fields) -> dict[str, Any]:
    """What every builder of specs takes."""
    heads = fields.count("num_attention_heads")
    groups = fields.count("num_key_value_heads", heads)
    embedding = fields.count("hidden_size")
    if heads % groups:
        raise fields.wrong("num_key_value_heads", groups, f"a divisor of {heads}")
    return {
        "layers": fields.count("num_hidden_layers", most=LAYERS),
        "embedding": embedding,
        "neurons": fields.count("intermediate_size"),
        "heads": heads,
        "kv_heads": groups,
        "projection": fields.count("head_dim", embedding // heads),
        "vocabulary": fields.count("vocab_size"),
        "context": fields.count("max_position_embeddings"),
    }


def _llama(fields: Fields, name: str) -> Spec:
    rope = rotary.same(fields, llama=True)
    base = llama3(
        name,
        **_sizes(fields),
        wavelength=rope.wavelength,
        stretch=rope.stretch,
        tied=fields.get("tie_word_embeddings"),
        norm_epsilon=fields.number("rms_norm_eps"),
    )
    return dataclasses.replace(base, rope_scales=(rope.scale,) * base.layers)


def _gemma(fields: Fields, name: str, kind: str) -> Spec:
    build = {"gemma": gemma1, "gemma2": gemma2, "gemma3_text": gemma3}[kind]
    base = build(name, **_sizes(fields))
    if kind == "gemma3_text":
        near, far = rotary.both(fields)
    else:
        near = far = rotary.same(fields)
    windows = base.windows if kind == "gemma" else _windows(fields, kind, base.layers)
    ropes = [near if window else far for window in windows]
    base = dataclasses.replace(
        base,
        windows=windows,
        wavelengths=tuple(rope.wavelength for rope in ropes),
        rope_scales=tuple(rope.scale for rope in ropes),
        norm_epsilon=fields.number("rms_norm_eps"),
    )
    if kind == "gemma":
        return base
    caps = [fields.number(key) if fields.has(key) else None for key in _NULLS]
    return dataclasses.replace(
        base,
        query_scale=fields.number("query_pre_attn_scalar") ** -0.5,
        attention_softcap=caps[0],
        final_softcap=caps[1],
    )


def _windows(fields: Fields, kind: str, layers: int) -> tuple[int | None, ...]:
    """Per layer, from `layer_types` or from the older `sliding_window_pattern`."""
    window = fields.count("sliding_window")
    if fields.has("layer_types"):
        kinds = fields.get("layer_types")
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise fields.wrong("layer_types", kinds, f"one for {layers} layers")
        for kind in kinds:
            if kind not in (_LOCAL, _GLOBAL):
                raise fields.wrong("layer_types", kind, f"{_LOCAL} or {_GLOBAL}")
        return tuple(window if kind == _LOCAL else None for kind in kinds)
    usual = 2 if kind == "gemma2" else 6
    usual = fields.count("_sliding_window_pattern", usual)
    every = fields.count("sliding_window_pattern", usual)
    return tuple(window if (i + 1) % every else None for i in range(layers))
