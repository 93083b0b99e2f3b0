"""Our parameters in the layout of Hugging Face's `transformers`.

    ours                         Hugging Face
    embedder                     model.embed_tokens.weight      (tied: no lm_head)
    unembedder                   lm_head.weight                 (untied)
    final_norm                   model.norm.weight              w

and, with a leading `layer` axis here, once in each `model.layers.{i}.` there:

    pre_attention_norm           input_layernorm.weight         w
    attention/query, key, value  self_attn.{q,k,v}_proj.weight  [head * p, embedding]
    attention/query_norm         self_attn.q_norm.weight        w
    attention/key_norm           self_attn.k_norm.weight        w
    attention/output             self_attn.o_proj.weight        [embedding, head * p]
    post_attention_norm          post_attention_layernorm.weight      w
    pre_mlp_norm                 pre_feedforward_layernorm.weight     w
    mlp/gate, up                 mlp.{gate,up}_proj.weight      [neurons, embedding]
    mlp/down                     mlp.down_proj.weight           [embedding, neurons]
    post_mlp_norm                post_feedforward_layernorm.weight    w

p is `projection`. w: norms of Gemma there multiply by 1 + w and ours by their scale, so
that w = scale - 1; those of Llama multiply as they are. A head's index is
group * query_heads + query. Gemma 1 and Llama have one norm before each branch and none
after, and call the one before the MLP `post_attention_layernorm`.

Everything is rearranged on the host, a label at a time.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mu_jax.checkpoints import matrix
from mu_jax.checkpoints.huggingface.config import config, is_llama
from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.model.params import Params, shapes
from mu_jax.model.specs import Spec

_TOP = {
    "embedder": "model.embed_tokens",
    "unembedder": "lm_head",
    "final_norm": "model.norm",
}
_WRAPPED = ("language_model.model.", "model.language_model.", "language_model.")
_BARE = ("embed_tokens", "layers", "norm")
_STACKED = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "mlp/gate": "mlp.gate_proj",
    "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
    "pre_attention_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "pre_mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


def to_huggingface(
    spec: Spec, params: Params
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the `config.json` and `model.safetensors` of a text-only model hold.

    The tensors are in C order and in the dtype of `params`.

    Raises:
      UserError: a parameter is missing, unknown or of another shape than `spec` says,
        or the spec is of a network that `transformers` has no config for.
    """
    found = dict(tensors(spec, params))
    return config(spec, str(params["embedder"].dtype)), found


def tensors(
    spec: Spec, params: Params, dtype: Any = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the checkpoint with its name, one after another.

    Only one of our labels is on the host at a time.

    Args:
      dtype: what all are cast to; by default each stays what it is.

    Raises:
      UserError: a parameter is missing, unknown or of another shape than `spec` says.
    """
    _check(spec, params)
    for label, shape in shapes(spec).items():
        value = fetch(params[label].unwrap(*shape), exact=True)
        stacked = "layer" in shape
        for i, part in enumerate(value if stacked else [value]):
            name = tensor_name(spec, label, i if stacked else None)
            yield name, leave(spec, label, part).astype(dtype or part.dtype, copy=False)


def tensor_name(spec: Spec, label: str, layer: int | None = None) -> str:
    """What one of our tensors, or one layer of it, is called there."""
    if layer is None:
        return f"{_TOP[label]}.weight"
    if label == "pre_mlp_norm" and not spec.post_norms:
        label = "post_attention_norm"
    return f"model.layers.{layer}.{_STACKED[label]}.weight"


def plain(name: str) -> str:
    """What a tensor is called in a text-only model with its head.

    Multimodal models wrap the name, and those saved without a head (`AutoModel`) leave
    out `model.`.
    """
    for wrapped in _WRAPPED:
        if name.startswith(wrapped):
            name = name.removeprefix(wrapped)
            break
    bare = name.startswith(tuple(f"{top}." for top in _BARE))
    return f"model.{name}" if bare else name


def leave(spec: Spec, label: str, value: np.ndarray) -> np.ndarray:
    """One tensor of one layer as it is there, in C order; matrices [outputs, inputs].

    A norm of Gemma is reckoned in float32 and is float32 then.
    """
    if label in ("embedder", "unembedder"):
        return np.ascontiguousarray(value)
    if label.endswith("norm"):
        return value if is_llama(spec) else value.astype(np.float32) - 1
    inputs = matrix.input_axes(label, value.ndim)
    first = np.moveaxis(value, inputs, range(len(inputs)))
    size = math.prod(first.shape[: len(inputs)])
    return np.ascontiguousarray(first.reshape(size, -1).T)


def _check(spec: Spec, params: Params) -> None:
    """Raises UserError unless exactly the parameters of `spec` are there."""
    wanted = shapes(spec)
    for label in sorted(wanted.keys() | params.keys()):
        got = dict(params[label].named_shape) if label in params else "absent"
        want = wanted.get(label, "absent")
        if got != want:
            raise UserError(
                f"the parameter {label!r} is {got}",
                f"{want} in {spec.name}",
                "check that the parameters are of this spec",
            )
