"""Second moments of keys: what they are, and that no damaged file is believed."""

import dataclasses
import os
import pickle
import time
import warnings

import numpy as np
import pytest

from mu_jax.edits.covariance import Covariance, Inverse
from mu_jax.edits.covariance_files import MomentFolder
from mu_jax.errors import Doubt

pytestmark = pytest.mark.usefixtures("quick")
HOW = Covariance(tokens=150, batch=4, shrinkage=0.1)


@pytest.fixture(scope="module")
def keys(tiny, told):
    """[layer, token, neurons] of ten rows, BOS left out, in float64."""
    _, reads = tiny.network.stream(tiny.params, told[2][:10], read=("neuron",))
    found = np.asarray(reads["neuron"], np.float64)[:, :, 1:]
    return found.reshape(len(found), -1, found.shape[-1])


def test_a_moment_is_the_mean_of_outer_products(tiny, told, keys):
    """Whatever the batch, though ten rows leave the last one half empty."""
    for layer in (2, 5):
        moment = HOW.moment(tiny, layer, told[2][:10])
        want = keys[layer].T @ keys[layer] / keys.shape[1]
        np.testing.assert_allclose(moment, want, rtol=0, atol=1e-5 * want.max())


def test_the_inverse_is_that_of_the_shrunk_moment(tiny, told, keys):
    (inverse,) = HOW(tiny, (2,), told[2])
    moment = keys[2].T @ keys[2] / keys.shape[1]
    shrunk = 0.9 * moment + 0.1 * np.trace(moment) / 48 * np.eye(48)
    back = inverse(keys[2][:3]) @ shrunk
    np.testing.assert_allclose(back, keys[2][:3], rtol=0, atol=1e-4)


def test_the_inverse_solves_a_badly_conditioned_system():
    spread = np.logspace(0, 9, 30)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    covariance = turn * spread @ turn.T
    right = np.arange(30.0)[None]
    back = Inverse(covariance.copy())(right) @ covariance
    np.testing.assert_allclose(back, right, atol=1e-5)


def test_what_is_kept_is_read_and_not_made_again(tiny, told, tmp_path):
    folder, said = MomentFolder(tmp_path / "deep" / "er", "tiny"), []
    tell = lambda what, *_: said.append(what)
    (made,) = HOW(tiny, (2,), told[2], folder, tell)
    assert said
    said.clear()
    (kept,) = HOW(tiny, (2,), told[2], folder, tell)
    assert not said
    ones = np.ones((1, 48))
    assert (made(ones) == kept(ones)).all()
    list(HOW(tiny, (2,), told[2][1:], folder, tell))  # other text
    assert said
    assert {path.suffix for path in folder.path.iterdir()} == {".safetensors"}


def test_one_layer_is_held_at_a_time(tiny, told, tmp_path):
    folder = MomentFolder(tmp_path, "tiny")
    inverses = HOW(tiny, (2, 5), told[2], folder)
    next(inverses)
    assert [path.name[:3] for path in tmp_path.iterdir()] == ["002"]
    next(inverses)
    assert len(list(tmp_path.iterdir())) == 2


def test_fewer_tokens_than_neurons_are_said_to_be_few(tiny, told):
    few = dataclasses.replace(HOW, tokens=1)  # one row of it, fewer than 48
    with pytest.warns(
        Doubt, match=r"of 48 neurons over \d+ tokens: .* shrinkage of 0.1"
    ):
        list(few(tiny, (2,), told[2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(HOW(tiny, (2,), told[2]))


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": flip,
    "a pickle": lambda path: path.write_bytes(pickle.dumps(np.eye(4))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "absent": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_counts_as_absent(tmp_path, how):
    folder = MomentFolder(tmp_path, "one")
    moment = np.arange(16, dtype=np.float32).reshape(4, 4)
    folder.put(3, "text", moment)
    assert (folder.get(3, "text") == moment).all()
    (path,) = tmp_path.iterdir()
    DAMAGE[how](path)
    assert folder.get(3, "text") is None
    if how != "a folder":
        folder.put(3, "text", moment)
        assert (folder.get(3, "text") == moment).all()


def test_a_file_under_another_name_counts_as_absent(tmp_path):
    one, other = (MomentFolder(tmp_path, name) for name in ("one", "other"))
    one.put(3, "text", np.eye(4, dtype=np.float32))
    (path,) = tmp_path.iterdir()
    assert other.get(3, "text") is None
    path.rename(other._file(3, "text"))
    assert other.get(3, "text") is None
    path = other._file(3, "text")
    path.rename(one._file(4, "text"))
    assert one.get(4, "text") is None


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    for name, age in (("tmpold.partial", 7200), ("tmpnew.partial", 60)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    MomentFolder(tmp_path, "one").put(3, "text", np.eye(4, dtype=np.float32))
    left = [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"]
    assert left == ["tmpnew.partial"]
