"""Directions taken away at a tap; a push that is the same everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

from mu_jax.model.network import Network
from mu_jax.model.params import random
from mu_jax.model.taps import without
from mu_jax.testing import tiny_spec

pytestmark = pytest.mark.usefixtures("quick", "float64")
SHAPE, PREFIX, LAYERS, WIDTH = (3, 11), 4, 7, 32
FROM = 3


@pytest.fixture(scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def model(float64):
    spec = tiny_spec(2, heads=4, kv_heads=2)
    return Network(spec), {k: a.astype(jnp.float64) for k, a in random(spec, 0).items()}


@pytest.fixture(scope="module")
def tokens():
    tokens = np.random.default_rng(0).integers(2, 512, SHAPE).astype(np.int32)
    tokens[:, :PREFIX] = tokens[0, :PREFIX]
    return tokens


@pytest.fixture(scope="module")
def directions():
    """A unit direction a layer; none below `FROM`."""
    drawn = np.random.default_rng(1).standard_normal((LAYERS, WIDTH))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    drawn[:FROM] = 0
    return drawn


@functools.partial(jax.jit, static_argnames=("network", "prefix"))
def stream(network, params, tokens, *, prefix=PREFIX, **how):
    return network.stream(params, tokens, prefix=prefix, read=("resid", "mlp"), **how)


@pytest.fixture(scope="module")
def ablated(model, tokens):
    """The final stream and what is read, without the directions given."""
    zero = np.zeros((LAYERS, WIDTH))

    def run(directions, shift=zero, prefix=PREFIX):
        how = {"ablate": {"resid": directions}, "shift": {"mlp": shift}}
        return stream(*model, tokens, prefix=prefix, **how)

    return run


def test_zero_directions_are_the_plain_run(model, tokens, ablated, directions):
    plain, reads = stream(*model, tokens)
    got, same = ablated(np.zeros_like(directions))
    np.testing.assert_allclose(got, plain, rtol=0, atol=1e-13)
    np.testing.assert_allclose(same["resid"], reads["resid"], rtol=0, atol=1e-13)
    assert np.abs(ablated(directions)[0] - plain).max() > 1e-2


def test_the_stream_has_no_part_along_its_direction(ablated, directions):
    whole = ablated(np.zeros_like(directions))[1]["resid"]
    found = ablated(directions)[1]["resid"]
    along = lambda resid: np.abs(np.einsum("lbse,le->lbs", resid, directions))
    assert along(found).max() < 1e-14 * np.abs(found).max()
    assert along(whole)[FROM:].max() > 0.1
    np.testing.assert_allclose(found[:FROM], whole[:FROM], rtol=0, atol=1e-13)


def test_a_shared_prefix_loses_the_direction_too(ablated, directions):
    got, reads = ablated(directions)
    whole, all_reads = ablated(directions, prefix=0)
    np.testing.assert_allclose(got, whole[:, PREFIX:], rtol=0, atol=1e-12)
    rest = all_reads["mlp"][:, :, PREFIX:]
    np.testing.assert_allclose(reads["mlp"], rest, rtol=0, atol=1e-12)


def test_a_narrow_shift_is_a_wide_one_everywhere(ablated, directions):
    push = np.random.default_rng(2).standard_normal((LAYERS, WIDTH))
    got, _ = ablated(directions, push)
    wide = np.broadcast_to(push[:, None, None], (LAYERS, 3, SHAPE[1] - PREFIX, WIDTH))
    want, _ = ablated(directions, wide)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert np.abs(got - ablated(directions)[0]).max() > 1e-2


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_taking_away_is_idempotent_and_zero_takes_nothing(dtype):
    rng = np.random.default_rng(3)
    x = pz.nx.wrap(jnp.asarray(rng.standard_normal((5, WIDTH)), dtype))
    x = x.tag("seq", "embedding")
    drawn = rng.standard_normal(WIDTH)
    name = lambda d: pz.nx.wrap(jnp.asarray(d)).tag("embedding")
    once = without(x, name(drawn / np.linalg.norm(drawn)))
    twice = without(once, name(drawn / np.linalg.norm(drawn)))
    plain = lambda a: np.asarray(a.unwrap("seq", "embedding"), np.float64)
    assert once.dtype == dtype and once.named_axes == x.named_axes
    near = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(plain(twice), plain(once), rtol=0, atol=near)
    assert np.abs(plain(once) - plain(x)).max() > 0.1
    np.testing.assert_array_equal(plain(without(x, name(np.zeros(WIDTH)))), plain(x))
