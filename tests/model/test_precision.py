"""A bfloat16 model: what stays float32 in it, and how far it is from float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rounding
import scipy.special
from penzai import pz
from rounding import EPSILON
from test_parity import PROMPTS

from mu_jax.checkpoints.huggingface.names import to_huggingface
from mu_jax.model.layers import Weights
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


def test_attention_is_rounded_to_bfloat16_once_it_is_done():
    """Logits of 20 and more, each rounded, would be off by up to 1/16, and so would
    be the weights they become."""
    rng = np.random.default_rng(0)
    query, key = (4 * rng.standard_normal((8, 32)) for _ in range(2))
    query, key = (jnp.asarray(a, jnp.bfloat16) for a in (query, key))
    named = [pz.nx.wrap(a).tag("seq", "projection") for a in (query, key)]
    found = Weights(pz.nn.Softmax("kv_seq"))(named).unwrap("seq", "kv_seq")
    assert found.dtype == jnp.bfloat16
    logits = np.float64(query) @ np.float64(key).T
    assert np.abs(logits).max() > 100
    wanted = scipy.special.softmax(logits, axis=1)
    likely = wanted > 1e-30
    error = np.abs(np.float64(found) - wanted)[likely] / wanted[likely]
    assert error.max() < 2**-8 + 100 * EPSILON  # one rounding, and float32's


def test_bfloat16_is_no_further_off_than_that_of_transformers(gemma):
    """Which way a rounding goes is chance, in ours as in theirs: a text's error is
    between two thirds and three halves of theirs where both round alike, and the mean
    of twelve texts within a third (four standard errors)."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    half = cast(gemma, jnp.bfloat16)
    whole = cast(half, jnp.float32)  # the same rounded weights, computed in float32
    ids = [gemma.tokenizer.encode(text).ids for text in PROMPTS]
    tokens = np.array([i[:9] for i in ids if len(i) >= 9], np.int32)
    assert len(tokens) == 12

    @jax.jit
    def said(params):
        stream, _ = gemma.network.stream(params, tokens)
        return gemma.network.logits(params, stream[:, 1:])

    wanted, ours = (np.asarray(said(model.params)) for model in (whole, half))

    config, tensors = to_huggingface(whole.spec, whole.params)
    official = Gemma3ForCausalLM(Gemma3TextConfig(**config)).eval()
    official.load_state_dict(
        {name: torch.tensor(value) for name, value in tensors.items()}, strict=False
    )

    def theirs(model):
        with torch.no_grad():
            return model(torch.tensor(tokens)).logits[:, 1:].float().numpy()

    exact = theirs(official)
    assert np.abs(wanted - exact).max() < rounding.network(gemma.spec, size=30)
    off = lambda logits, truth: np.log(np.abs(logits - truth).mean(axis=(1, 2)))
    ratios = off(ours, wanted) - off(theirs(official.bfloat16()), exact)
    assert np.exp(ratios.mean()) < 4 / 3, np.exp(ratios)
