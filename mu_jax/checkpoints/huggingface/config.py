"""A spec as the `config.json` of Hugging Face's `transformers`."""

from collections.abc import Iterable
from typing import Any

from mu_jax.errors import UserError
from mu_jax.model.specs import GLOBAL_WAVELENGTH, LOCAL_WAVELENGTH, Spec

_ACTIVATION = "gelu_pytorch_tanh"


def config(spec: Spec, dtype: str) -> dict[str, Any]:
    """The config, in the keys of the published checkpoints.

    Raises:
      UserError: `transformers` has no config for such a network.
    """
    common = {
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.embedding,
        "intermediate_size": spec.neurons,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.head_groups,
        "head_dim": spec.projection,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_epsilon,
        "attention_bias": False,
        "tie_word_embeddings": spec.tied,
        "dtype": dtype,
    }
    return common | (_llama(spec) if is_llama(spec) else _gemma(spec))


def is_llama(spec: Spec) -> bool:
    """Whether a spec is of Llama's kind, and not of Gemma's."""
    return spec.activation == "silu"


def _llama(spec: Spec) -> dict[str, Any]:
    """What a Llama's config says besides."""
    caps = spec.attention_softcap or spec.final_softcap
    strange = spec.post_norms or spec.qk_norm or caps or any(spec.windows)
    if strange or spec.scaled_embeddings:
        raise UserError(
            f"{spec.name} has SiLU, but also norms, windows, caps or scaled embeddings"
            " that Llama does not have",
            "the blocks of Llama 3",
        )
    _only(spec, "RoPE scales", (1.0, *spec.rope_scales), 1.0)
    stretch = spec.rope_stretch
    scaling = stretch and {
        "rope_type": "llama3",
        "factor": stretch.factor,
        "low_freq_factor": stretch.low,
        "high_freq_factor": stretch.high,
        "original_max_position_embeddings": stretch.context,
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "mlp_bias": False,
        "bos_token_id": None,  # the tokenizer says
        "eos_token_id": None,
        "rope_theta": _only(spec, "RoPE wavelengths", spec.wavelengths, None),
        "rope_scaling": scaling,
    }


def _gemma(spec: Spec) -> dict[str, Any]:
    """What a Gemma's config says besides."""
    if not (spec.tied and spec.scaled_embeddings) or spec.rope_stretch:
        raise UserError(
            f"{spec.name} has GELU, but an unembedding, unscaled embeddings or"
            " stretched frequencies that Gemma does not have",
            "the blocks of Gemma 1, 2 or 3",
        )
    generation = _generation(spec)
    version = "" if generation == 1 else str(generation)
    common = {
        "architectures": [f"Gemma{version}ForCausalLM"],
        "model_type": "gemma3_text" if generation == 3 else f"gemma{version}",
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    if generation == 1:
        return common | _rope(spec) | {"hidden_act": _ACTIVATION}
    window = _only(spec, "windows", (w for w in spec.windows if w), None)
    kinds = ["sliding_attention" if w else "full_attention" for w in spec.windows]
    later = {
        "hidden_activation": _ACTIVATION,
        "query_pre_attn_scalar": round(spec.query_scale**-2),
        "attn_logit_softcapping": spec.attention_softcap,
        "final_logit_softcapping": spec.final_softcap,
        "sliding_window": window,
        "layer_types": kinds,
    }
    return common | later | (_rope(spec) if generation == 2 else _rope_3(spec))


def _generation(spec: Spec) -> int:
    """Which Gemma has the norms, windows and caps of `spec`."""
    caps = spec.attention_softcap or spec.final_softcap
    if spec.post_norms:
        return 3 if spec.qk_norm else 2
    if spec.qk_norm or caps or any(spec.windows):
        raise UserError(
            f"{spec.name} has no norms after its branches, but norms on queries and"
            " keys, windows or soft caps",
            "the blocks of Gemma 1, 2 or 3",
        )
    return 1


def _rope(spec: Spec) -> dict[str, Any]:
    """The rotary embedding of Gemma 1 and 2: one wavelength, not scaled."""
    _only(spec, "RoPE scales", (1.0, *spec.rope_scales), 1.0)
    theta = _only(spec, "RoPE wavelengths", spec.wavelengths, LOCAL_WAVELENGTH)
    return {"rope_theta": theta}


def _rope_3(spec: Spec) -> dict[str, Any]:
    """That of Gemma 3: one wavelength a kind of layer, global ones may be scaled."""

    def of(values: tuple[float, ...], local: bool) -> list[float]:
        pairs = zip(values, spec.windows, strict=True)
        return [value for value, window in pairs if bool(window) == local]

    far, near = (of(spec.wavelengths, local) for local in (False, True))
    _only(spec, "local RoPE scales", (1.0, *of(spec.rope_scales, True)), 1.0)
    factor = _only(spec, "global RoPE scales", of(spec.rope_scales, False), 1.0)
    scaling = {"rope_type": "linear", "factor": factor}
    return {
        "rope_theta": _only(spec, "global RoPE wavelengths", far, GLOBAL_WAVELENGTH),
        "rope_local_base_freq": _only(
            spec, "local RoPE wavelengths", near, LOCAL_WAVELENGTH
        ),
        "rope_scaling": None if factor == 1 else scaling,
    }


def _only(spec: Spec, what: str, values: Iterable, default: Any) -> Any:
    """The one value that all layers share, or `default` where there is no layer."""
    found = sorted(set(values))
    if len(found) > 1:
        raise UserError(
            f"{spec.name} has the {what} {', '.join(map(str, found))}",
            "one that transformers can give to all such layers",
        )
    return found[0] if found else default
