"""What Hugging Face calls our parameters: one table for reading and for writing.

    ours                         Hugging Face
    embedder                     model.embed_tokens.weight
    unembedder                   lm_head.weight                 (untied only)
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

p is `projection`. w: Gemma's norms there multiply by 1 + w and ours by their scale, so
that w = scale - 1; Llama stores the scale. A head's index is group * query_heads +
query. Gemma 1 and Llama have one norm before each branch and none after, and call the
one before the MLP `post_attention_layernorm`.
"""

from mu_jax.model.params import shapes
from mu_jax.model.specs import Spec

_TOP = {
    "embedder": "model.embed_tokens",
    "unembedder": "lm_head",
    "final_norm": "model.norm",
}
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


def tensors(spec: Spec) -> dict[str, tuple[str, int | None]]:
    """Hugging Face's name of every tensor -> our label, and which layer of it."""
    names: dict[str, tuple[str, int | None]] = {}
    for label, shape in shapes(spec).items():
        if "layer" not in shape:
            names[f"{_TOP[label]}.weight"] = (label, None)
            continue
        theirs = _STACKED[label]
        if label == "pre_mlp_norm" and not spec.post_norms:
            theirs = _STACKED["post_attention_norm"]
        for i in range(spec.layers):
            names[f"model.layers.{i}.{theirs}.weight"] = (label, i)
    return names


def is_llama(spec: Spec) -> bool:
    """Whether a spec is of Llama's blocks (SiLU) rather than Gemma's."""
    return spec.activation == "silu"


def norm_offset(spec: Spec) -> int:
    """What Hugging Face's norms add to a stored scale: 1 in Gemma, 0 in Llama."""
    return 0 if is_llama(spec) else 1
