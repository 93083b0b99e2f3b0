"""A bfloat16 model: what stays float32 in it, and how far it is from float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mu_jax as mu
from mu_jax.checkpoints.huggingface.names import to_huggingface
from mu_jax.model.params import dtype_of
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec


def cast(model, dtype):
    params = {k: a.astype(dtype_of(k, dtype)) for k, a in model.params.items()}
    return dataclasses.replace(model, params=params)


@pytest.mark.parametrize("spec", [tiny_spec(1), tiny_spec(2), tiny_llama()])
def test_the_stream_is_bfloat16_and_logits_are_float32(spec):
    half = cast(tiny_model(spec), jnp.bfloat16)
    kinds = ("query", "key", "value", "head", "attn", "neuron", "mlp", "resid")
    see = lambda params: half.network.stream(params, np.ones((2, 5), int), read=kinds)
    stream, reads = jax.eval_shape(see, half.params)
    assert stream.dtype == jnp.bfloat16
    assert {kind: a.dtype for kind, a in reads.items()} == dict.fromkeys(
        kinds, jnp.bfloat16
    )
    logits = jax.eval_shape(half.network.logits, half.params, stream)
    assert logits.dtype == jnp.float32


def test_norm_scales_stay_float32(tiny):
    half = cast(tiny, jnp.bfloat16).params
    wide = {label for label, a in half.items() if a.dtype == jnp.float32}
    assert wide == {label for label in half if label.endswith("norm")}


def test_bfloat16_is_no_further_off_than_that_of_transformers(gemma):
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    half = cast(gemma, jnp.bfloat16)
    whole = cast(half, jnp.float32)  # the same rounded weights, computed in float32
    source = mu.Sports()
    questions = [source.templates[0](fact) for fact in source.load()[:4]]
    prompts = mu.prompts(questions, gemma.tokenizer)
    wanted = whole.run(prompts).logits
    ours = np.abs(half.run(prompts).logits - wanted).mean()

    config, tensors = to_huggingface(whole.spec, whole.params)
    official = Gemma3ForCausalLM(Gemma3TextConfig(**config))
    official.load_state_dict(
        {name: torch.tensor(value) for name, value in tensors.items()}, strict=False
    )
    ids, valid = (torch.tensor(np.asarray(a)) for a in prompts[:2])

    def theirs(model):
        with torch.no_grad():
            logits = model.eval()(ids, attention_mask=valid.long()).logits
        return logits[np.arange(len(ids)), np.asarray(prompts.last)].float().numpy()

    exact = theirs(official)
    np.testing.assert_allclose(wanted, exact, rtol=0, atol=2e-4)
    assert ours < 1.1 * np.abs(theirs(official.bfloat16()) - exact).mean()
