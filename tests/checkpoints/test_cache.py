"""Converted models on disk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_jax.checkpoints import cache
from mu_jax.testing import tiny_spec

SPEC = tiny_spec()
PARAMS = {
    "embedder": np.arange(12, dtype=np.float32).reshape(3, 4),
    "mlp/gate": np.array([[np.nan, -0.0], [np.inf, 1e-40]], np.float32),
}
TOKENIZER = bytes(range(256))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "model.safetensors"
    cache.write(path, SPEC, PARAMS, TOKENIZER)
    return path.read_bytes()


def same(found) -> bool:
    spec, params, tokenizer = found
    return (
        spec == SPEC
        and tokenizer == TOKENIZER
        and params.keys() == PARAMS.keys()
        and all(
            params[k].tobytes() == v.tobytes()
            and (params[k].shape, params[k].dtype) == (v.shape, v.dtype)
            for k, v in PARAMS.items()
        )
    )


def test_a_model_is_read_as_written_and_nothing_partial_is_left(tmp_path):
    path = tmp_path / "model.safetensors"
    cache.write(path, SPEC, PARAMS, TOKENIZER)
    assert same(cache.read(path))
    cache.write(path, SPEC, PARAMS, TOKENIZER)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_what_is_absent_is_none(tmp_path):
    assert cache.read(tmp_path / "nope.safetensors") is None
    assert cache.read(tmp_path) is None


@given(data=st.data())
@settings(max_examples=300)
def test_a_changed_byte_is_noticed_or_changes_nothing(tmp_path_factory, whole, data):
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    found = cache.read(path)
    assert found is None or same(found)


@given(st.integers(0, 5000))
def test_a_truncated_file_is_none(tmp_path_factory, whole, size):
    path = tmp_path_factory.getbasetemp() / "short.safetensors"
    path.write_bytes(whole[: min(size, len(whole) - 1)])
    assert cache.read(path) is None


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(Exception):  # noqa: B017
        cache.write(tmp_path / "m", SPEC, {"x": np.array([object()])}, b"")
    assert not list(tmp_path.iterdir())


def test_entries_lie_in_the_directory_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "own"))
    assert cache.entry("abc").parent == tmp_path / "own" == cache.directory()
    assert cache.entry("abc") != cache.entry("abd")
