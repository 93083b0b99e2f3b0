"""Taps: shifts, runs taken up half-way, reads and writes of the stream."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mu_jax.model import attention
from mu_jax.model.network import Network
from mu_jax.model.params import random
from mu_jax.model.taps import KINDS, Patch, weight_shape
from mu_jax.testing import tiny_spec

pytestmark = pytest.mark.usefixtures("quick", "float64")
SHAPE, PREFIX = (3, 13), 4
LAYERS = 7


@pytest.fixture(scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def prompts():
    """Tokens that share a prefix; the second row is padded."""
    tokens = np.random.default_rng(0).integers(2, 512, SHAPE).astype(np.int32)
    tokens[:, :PREFIX] = tokens[0, :PREFIX]
    valid = np.ones(SHAPE, bool)
    valid[1, -3:] = False
    return tokens, valid


@pytest.fixture(scope="module", params=[1, 2, 3])
def model(request, float64):
    """A network whose windows and soft caps bite, and its parameters."""
    spec = tiny_spec(request.param, heads=4, kv_heads=2)
    caps = (
        {"attention_softcap": 2.0, "final_softcap": 3.0} if spec.final_softcap else {}
    )
    windows = tuple(w and 4 for w in spec.windows)
    spec = dataclasses.replace(spec, windows=windows, **caps)
    params = {k: a.astype(jnp.float64) for k, a in random(spec, 0).items()}
    return Network(spec), params


@functools.partial(jax.jit, static_argnames=("network", "prefix", "read"))
def stream(network, params, tokens, valid, *, prefix=0, read=KINDS, **how):
    return network.stream(params, tokens, valid, prefix=prefix, read=read, **how)


@pytest.fixture(scope="module")
def run(model, prompts):
    """The final stream behind a prefix, and all that is read."""
    made, reads = stream(*model, *prompts, prefix=PREFIX)
    return made, jax.tree.map(np.asarray, reads)


@functools.partial(jax.jit, static_argnames=("network",))
def gradient(network, params, tokens, valid, direction, shift):
    """(f, df / d shift) of the logits along a random direction."""

    def f(shift):
        made, _ = network.stream(params, tokens, valid, prefix=PREFIX, shift=shift)
        logits = network.logits(params, made)
        return jnp.einsum("bsv,bsv->", logits, direction)

    return jax.value_and_grad(f)(shift)


@pytest.fixture(scope="module")
def slope(model, prompts, run):
    """Value and gradient of shifts, and no shift."""
    rng = np.random.default_rng(1)
    width = SHAPE[1] - PREFIX
    direction = rng.standard_normal((SHAPE[0], width, 512))
    direction *= prompts[1][:, PREFIX:, None]
    zero = {kind: np.zeros_like(run[1][kind]) for kind in KINDS}
    f = functools.partial(gradient, *model, *prompts, direction)
    return f, zero, f(zero)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_changes_the_logits_as_its_gradient_says(slope, kind):
    f, zero, found = slope
    rng, step = np.random.default_rng(2), 1e-5
    change = rng.standard_normal(zero[kind].shape)
    up, down = (f({**zero, kind: h * change})[0] for h in (step, -step))
    want = float((found[kind] * change).sum())
    assert abs((up - down) / (2 * step) - want) < 1e-6 * abs(want)


def entering_of(model, tokens, resid):
    network, params = model
    first = network.embeddings(params, tokens[:, PREFIX:])
    return jnp.concatenate([first[None], resid])


@functools.partial(jax.jit, static_argnames=("network",))
def resume(network, params, entering, start, tokens, valid, patch):
    return network.resume(
        params,
        entering,
        start,
        tokens,
        valid,
        memory=network.remember(params, tokens[0, :PREFIX]),
        prefix=PREFIX,
        patch=patch,
    )


def test_a_run_taken_up_at_any_layer_is_the_whole_run(model, prompts, run):
    network, params = model
    final, reads = run
    entering = entering_of(model, prompts[0], reads["resid"])
    whole, _ = stream(network, params, *prompts, read=())
    np.testing.assert_allclose(final, whole[:, PREFIX:], rtol=0, atol=1e-12)
    donor = np.random.default_rng(3).standard_normal(reads["mlp"].shape)
    weight = np.zeros((LAYERS, 2, *donor.shape[1:3]))
    weight[5, 1] = 1  # the second cell moves layer 5
    patch = {"mlp": Patch(weight, donor)}
    moved, _ = stream(
        network,
        params,
        *prompts,
        prefix=PREFIX,
        patch={"mlp": Patch(weight[:, 1], donor)},
    )
    assert np.abs(moved - final).max() > 0.1
    for start in range(LAYERS + 1):
        both = jnp.stack([entering[start]] * 2)
        got = resume(network, params, both, np.int32(start), *prompts, patch)
        np.testing.assert_allclose(got[0], final, rtol=0, atol=1e-12)
        want = moved if start <= 5 else final
        np.testing.assert_allclose(got[1], want, rtol=0, atol=1e-12)


@functools.partial(jax.jit, static_argnames=("network",))
def parts(network, params, layer, entering, heads, tokens, valid):
    read = {
        kind: attention.read(
            network, params, kind, layer, entering, tokens, valid, PREFIX
        )
        for kind in ("query", "key", "value")
    }
    return {**read, "attn": attention.write(network, params, layer, heads)}


def test_reads_and_writes_of_the_stream_are_those_of_the_block(model, prompts, run):
    _, reads = run
    entering = entering_of(model, prompts[0], reads["resid"])
    for layer in range(LAYERS):
        heads = reads["head"][layer]
        got = parts(*model, np.int32(layer), entering[layer], heads, *prompts)
        for kind, array in got.items():
            np.testing.assert_allclose(
                array, reads[kind][layer], rtol=0, atol=1e-12, err_msg=kind
            )


def test_the_parts_of_a_block_add_up(run):
    reads = run[1]
    before = reads["resid"][:-1]
    middle = before + reads["attn"][1:]
    np.testing.assert_allclose(reads["mlp_in"][1:], middle, rtol=0, atol=1e-12)
    after = middle + reads["mlp"][1:]
    np.testing.assert_allclose(reads["resid"][1:], after, rtol=0, atol=1e-12)


def test_the_logits_of_a_few_tokens_are_their_logits(model, run):
    network, params = model
    ends = run[0][:, -1]
    cells = jnp.stack([ends, 2 * ends])
    logits = np.asarray(network.logits(params, cells))
    tokens = np.random.default_rng(4).integers(0, 512, (SHAPE[0], 5))
    want = np.take_along_axis(logits, np.stack([tokens] * 2), axis=-1)
    got = network.logits_of(params, cells, tokens)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    if network.spec.final_softcap:
        assert np.abs(logits).max() < network.spec.final_softcap


def test_a_weight_is_one_number_a_position_a_head_or_a_neuron(model, run):
    rows, rest = SHAPE[0], SHAPE[1] - PREFIX
    for kind, array in run[1].items():
        want = {"head": (rest, 4), "neuron": (48,)}.get(kind, (rest,))
        assert weight_shape(kind, array.shape) == (LAYERS, rows, *want)
