"""Published configs, in all spellings; and what no config should be."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.checkpoints.huggingface.config import config as written
from mu_jax.checkpoints.huggingface.spec import spec
from mu_jax.errors import UserError
from mu_jax.model.releases import SPECS
from mu_jax.model.specs import Spec
from mu_jax.testing import tiny_llama, tiny_spec

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
STRETCH = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
GEMMA3_1B = {
    "model_type": "gemma3_text",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
GEMMA3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}
GEMMA2_9B = {
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
GEMMA_2B = {
    "model_type": "gemma",
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "vocab_size": 256000,
}


def same(found: Spec, name: str, **changes) -> bool:
    """Whether a spec is a row of the table but for its name and the changes."""
    return dataclasses.replace(SPECS[name], name=found.name, **changes) == found


def test_published_configs_are_the_rows_of_the_table():
    assert spec(LLAMA, "x") == SPECS["llama3-8b"]
    longer = {**LLAMA, "max_position_embeddings": 131072, "rope_scaling": STRETCH}
    assert spec(longer, "x") == SPECS["llama3.1-8b"]
    assert spec(GEMMA3_1B, "x") == SPECS["gemma3-1b"]
    assert same(spec(GEMMA3_4B, "x"), "gemma3-4b", vocabulary=262_208)
    assert same(spec(GEMMA2_9B, "x"), "gemma2-9b", vocabulary=256_000)
    assert same(spec(GEMMA_2B, "x"), "gemma-2b", vocabulary=256_000)


def test_both_spellings_of_the_rotary_embedding_are_one():
    new = {k: v for k, v in LLAMA.items() if k not in ("rope_theta", "rope_scaling")}
    old = {**new, "rope_theta": 5e5, "rope_scaling": STRETCH}
    new |= {"rope_parameters": {**STRETCH, "rope_theta": 5e5}}
    assert spec(old, "x") == spec(new, "x")
    assert spec(new, "x").rope_stretch == SPECS["llama3.1-8b"].rope_stretch
    older = {**GEMMA3_1B, "rope_scaling": {"type": "linear", "factor": 8.0}}
    newer = {
        **{k: v for k, v in GEMMA3_1B.items() if "rope" not in k},
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }
    assert spec(older, "x") == spec(newer, "x")
    assert set(spec(older, "x").rope_scales) == {1.0, 8.0}


def test_a_head_and_groups_that_are_not_named_are_derived():
    less = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    found = spec(less, "x")
    assert (found.head_groups, found.projection) == (32, 128)


@pytest.mark.parametrize(
    "made", [tiny_spec(1), tiny_spec(2), tiny_spec(3), tiny_llama(), *SPECS.values()]
)
def test_what_is_written_is_read_back(made):
    assert spec(written(made, "float32"), made.name) == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": "gemma3"}, "no text_config"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "4096"}, "hidden_size is '4096'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": -3}, "vocab_size"),
        ({"num_key_value_heads": 5}, "expected a divisor of 32"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type .* 'yarn'"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_type .* 'dynamic'"),
        ({"rope_scaling": [8]}, "rope_parameters"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "lacks factor"),
        ({"rope_scaling": {**STRETCH, "low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_another_config_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        spec({**LLAMA, **changes}, "some model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"layer_types": ["full_attention"]}, "one for 26 layers"),
        ({"layer_types": ["chunked_attention"] * 26}, "'chunked_attention'"),
        ({"hidden_activation": "gelu"}, "hidden_activation"),
    ],
)
def test_another_gemma_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        spec({**GEMMA3_1B, **changes}, "some model")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
    ),
    max_leaves=4,
)


@given(data=st.data())
def test_junk_is_refused_or_read_and_nothing_else(data):
    config = dict(data.draw(st.sampled_from([LLAMA, GEMMA3_1B, GEMMA3_4B, GEMMA2_9B])))
    extra = ("rope_parameters", "layer_types", "text_config", "sliding_window_pattern")
    key = data.draw(st.sampled_from([*config, *extra]))
    try:
        assert isinstance(spec({**config, key: data.draw(JUNK)}, "x"), Spec)
    except UserError as error:
        assert "\n" not in str(error)
