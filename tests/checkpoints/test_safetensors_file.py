"""Safetensors files: overwriting a tensor, writing shards."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mu_jax.checkpoints.safetensors_file import overwrite, places, write_shards
from mu_jax.errors import UserError


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    return {
        "a": draw(3, 5),
        "b": draw(4, 2).astype(ml_dtypes.bfloat16),
        "c": draw(7).astype(np.float16),
        "n": np.arange(6, dtype=np.int8),
    }


@pytest.fixture
def path(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_overwriting_changes_the_bytes_of_one_tensor(path, tensors, name):
    before, place = path.read_bytes(), places(path)[name]
    assert place.shape == tensors[name].shape
    value = np.random.default_rng(1).standard_normal(place.shape).astype(np.float32)
    overwrite(path, name, place, value)
    after = path.read_bytes()
    end = place.start + tensors[name].nbytes
    assert after[: place.start] == before[: place.start]
    assert after[end:] == before[end:]
    found = load_file(path)
    np.testing.assert_array_equal(found[name], value.astype(tensors[name].dtype))
    for other in tensors.keys() - {name}:
        np.testing.assert_array_equal(found[other], tensors[other])


def test_rounding_is_to_the_nearest(path):
    # In bfloat16 the numbers next to 1 are 1 - 2**-8 and 1 + 2**-7.
    value = np.ones((4, 2), np.float32)
    value[:, 0] = [1 + 0.4 * 2**-7, 1 + 0.6 * 2**-7, 1 + 2**-8, 1 + 3 * 2**-8]
    overwrite(path, "b", places(path)["b"], value)
    expected = [1, 1 + 2**-7, 1, 1 + 2**-6]  # ties go to even
    assert load_file(path)["b"][:, 0].astype(np.float32).tolist() == expected


def test_what_a_tensor_cannot_hold_is_refused(path):
    before, found = path.read_bytes(), places(path)
    for name, value, message in (
        ("a", np.zeros((5, 3), np.float32), r"a of shape \[3, 5\]; expected \[5, 3\]"),
        ("n", np.zeros(6, np.float32), "n in the format I8"),
        ("c", np.full(7, 1e6, np.float32), "c is not finite in F16"),
        ("a", np.full((3, 5), np.nan, np.float32), "a is not finite in F32"),
    ):
        with pytest.raises(UserError, match=message):
            overwrite(path, name, found[name], value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[:20], lambda b: b"", lambda b: b"\xff" * 8 + b[8:]],
)
def test_a_damaged_file_is_refused(path, damage):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        places(path)


def test_shards_hold_everything_once_and_no_more_than_they_should(tmp_path):
    tensors = {f"t{i}": np.full((i + 1, 8), i, np.float32) for i in range(9)}
    write_shards(tmp_path, iter(tensors.items()), shard=400)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files[
        -1
    ] == f"model-{len(files):05}-of-{len(files):05}" + (".safetensors")
    assert sorted(set(index["weight_map"].values())) == files
    assert len(list(tmp_path.iterdir())) == len(files) + 1
    found = {}
    for file in files:
        inside = load_file(tmp_path / file)
        assert sum(v.nbytes for v in inside.values()) <= 400
        assert all(index["weight_map"][name] == file for name in inside)
        assert not found.keys() & inside.keys()
        found |= inside
    assert found.keys() == tensors.keys()
    assert all((found[name] == tensors[name]).all() for name in tensors)
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in tensors.values())


def test_one_shard_needs_no_index(tmp_path):
    write_shards(tmp_path, iter({"x": np.zeros(3, np.float32)}.items()))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
