"""Our parameters under Hugging Face's names, in its shapes."""

import dataclasses

import numpy as np
import pytest

from mu_jax.checkpoints.huggingface.names import to_huggingface
from mu_jax.errors import UserError
from mu_jax.model.releases import SPECS
from mu_jax.testing import tiny_model, tiny_spec

# The tiny spec: embedding 32, 48 neurons, 4 heads over 2 groups of projection 8.
MATRICES = {
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}
BEFORE_BRANCHES = {
    "input_layernorm": "pre_attention_norm",
    "post_attention_layernorm": "pre_mlp_norm",
}
AROUND_BRANCHES = {
    "input_layernorm": "pre_attention_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "pre_mlp_norm",
    "post_feedforward_layernorm": "post_mlp_norm",
}
QK = {
    "self_attn.q_norm": "attention/query_norm",
    "self_attn.k_norm": "attention/key_norm",
}
NORMS = {1: BEFORE_BRANCHES, 2: AROUND_BRANCHES, 3: {**AROUND_BRANCHES, **QK}}


def model_of(generation: int):
    return tiny_model(tiny_spec(generation, kv_heads=2), seed=generation)


@pytest.fixture(params=[1, 2, 3], ids="gemma{}".format)
def exported(request):
    """The generation, our parameters as plain arrays, the config and the tensors."""
    model = model_of(request.param)
    ours = {k: np.asarray(a.unwrap(*a.named_shape)) for k, a in model.params.items()}
    return request.param, ours, *to_huggingface(model.spec, model.params)


def test_names_and_shapes(exported):
    generation, _, config, tensors = exported
    wanted = {"model.embed_tokens.weight": (512, 32), "model.norm.weight": (32,)}
    norms = {name: (8,) if name in QK else (32,) for name in NORMS[generation]}
    for i in range(7):
        for name, shape in {**MATRICES, **norms}.items():
            wanted[f"model.layers.{i}.{name}.weight"] = shape
    assert {name: value.shape for name, value in tensors.items()} == wanted
    assert all(value.flags.c_contiguous for value in tensors.values())
    assert {str(value.dtype) for value in tensors.values()} == {config["dtype"]}


def test_the_head_is_tied(exported):
    _, ours, config, tensors = exported
    assert config["tie_word_embeddings"]
    assert not any("lm_head" in name for name in tensors)
    np.testing.assert_array_equal(
        tensors["model.embed_tokens.weight"], ours["embedder"]
    )


def test_norms_are_one_less(exported):
    generation, ours, _, tensors = exported
    np.testing.assert_array_equal(tensors["model.norm.weight"], ours["final_norm"] - 1)
    for name, label in NORMS[generation].items():
        for i in range(7):
            stored = tensors[f"model.layers.{i}.{name}.weight"]
            np.testing.assert_array_equal(stored, ours[label][i] - 1, err_msg=name)


def test_matrices_map_what_ours_map(exported):
    _, ours, _, tensors = exported
    layer, rng = 3, np.random.default_rng(0)
    x, hidden, heads = (rng.normal(size=n) for n in (32, 48, (2, 2, 8)))

    def theirs(name, value):
        return tensors[f"model.layers.{layer}.{name}.weight"] @ value.reshape(-1)

    def same(name, value, subscripts, label):
        expected = np.einsum(subscripts, value, ours[label][layer]).reshape(-1)
        np.testing.assert_allclose(theirs(name, value), expected, rtol=1e-5, atol=1e-5)

    same("self_attn.q_proj", x, "e,ghep->ghp", "attention/query")
    same("self_attn.k_proj", x, "e,gep->gp", "attention/key")
    same("self_attn.v_proj", x, "e,gep->gp", "attention/value")
    same("self_attn.o_proj", heads, "ghp,ghpe->e", "attention/output")
    same("mlp.gate_proj", x, "e,en->n", "mlp/gate")
    same("mlp.up_proj", x, "e,en->n", "mlp/up")
    same("mlp.down_proj", hidden, "n,ne->e", "mlp/down")


def test_configs_of_the_generations():
    one, two, three = (
        to_huggingface(m.spec, m.params)[0] for m in map(model_of, (1, 2, 3))
    )
    names = ["GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"]
    assert [c["architectures"][0] for c in (one, two, three)] == names
    assert "layer_types" not in one
    assert two["layer_types"][:2] == ["sliding_attention", "full_attention"]
    assert two["attn_logit_softcapping"] == 50 and two["final_logit_softcapping"] == 30
    assert three["layer_types"].index("full_attention") == 5
    assert three["sliding_window"] == 16 and three["query_pre_attn_scalar"] == 8
    assert three["rope_theta"] == 1e6 and three["rope_local_base_freq"] == 1e4
    assert three["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_a_parameter_that_does_not_fit_is_named(tiny):
    missing = {k: v for k, v in tiny.params.items() if k != "mlp/up"}
    with pytest.raises(UserError, match="'mlp/up' is absent"):
        to_huggingface(tiny.spec, missing)
    with pytest.raises(UserError, match="in gemma3-270m"):
        to_huggingface(SPECS["gemma3-270m"], tiny.params)
    first = tiny_spec(1, layers=7)
    with pytest.raises(UserError, match=r"'attention/key_norm' is .*expected absent"):
        to_huggingface(first, tiny.params)


@pytest.mark.parametrize(
    ("generation", "changes", "message"),
    [
        (1, {"final_softcap": 30.0}, "soft caps"),
        (2, {"rope_scales": (1.0,) * 6 + (8.0,)}, "RoPE scales 1.0, 8.0"),
        (2, {"windows": (16, 32) * 3 + (None,)}, "windows 16, 32"),
        (3, {"wavelengths": (1e4,) * 6 + (1e5,)}, "local RoPE wavelengths"),
    ],
)
def test_a_spec_without_a_config_is_refused(generation, changes, message):
    model = model_of(generation)
    spec = dataclasses.replace(model.spec, **changes)
    with pytest.raises(UserError, match=message):
        to_huggingface(spec, model.params)
