"""Which keys a GGUF file may have under its architecture.

One that is not known may change every number, so it is refused; and so is one that is
known, has no place in a spec, and says something else than the network does.
"""

from typing import Any

from mu_jax.checkpoints.fields import Fields
from mu_jax.checkpoints.gguf import layers

_READ = {
    *("block_count", "context_length", "embedding_length", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.layer_norm_rms_epsilon", "rope.freq_base"),
    *("rope.scaling.type", "rope.scaling.factor"),
}
_CAPS = {"attn_logit_softcapping", "final_logit_softcapping"}
_LATER = {"attention.sliding_window", *_CAPS, *layers.KEYS}
_ALSO_READ = {"gemma2.": _LATER, "gemma3.": _LATER}
_OF_NO_MATTER = {
    *("rope.scaling.finetuned", "rope.scaling.original_context_length"),
    *("vocab_size", "tensor_data_layout", "mm.tokens_per_image"),
}
_AS_KEYS = {
    *("attention.value_length", "attention.value_length_swa"),
    *("attention.key_length_swa", "rope.dimension_count", "rope.dimension_count_swa"),
}
"""All of them are the size of a head."""
_FIXED: dict[str, Any] = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0,
}


def check(at: Fields, projection: int) -> None:
    """Raises UserError for the first key that is not known or says something else."""
    fixed = _FIXED | dict.fromkeys(_AS_KEYS, projection)
    known = _READ | _ALSO_READ.get(at.prefix, set()) | _OF_NO_MATTER
    for key in at.values:
        name = key.removeprefix(at.prefix)
        if name == key or name in known:
            continue
        value = at.get(name)
        if name not in fixed:
            raise at.wrong(name[:80], value, "no key that we do not know")
        if value != fixed[name]:
            raise at.wrong(name, value, f"{fixed[name]}, as in every such model")
