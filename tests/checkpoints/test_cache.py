"""Converted models on disk."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys

import made_checkpoints as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mu_jax as mu
from mu_jax.checkpoints import cache
from mu_jax.checkpoints.source import Memory, place
from mu_jax.model.tokenizer import JsonTokenizer

MODEL = made.model("llama3")
PARAMS = made.plain(MODEL.params)
SETTINGS = {"tokenizer_config.json": b'{"bos_token": "<|begin|>"}'}
WORDS = JsonTokenizer(made.tokenizer_json(), SETTINGS)
SPEC = dataclasses.replace(MODEL.spec, name="été")
SOURCE = Memory(SPEC, MODEL.params, WORDS, "abc")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "model"
    cache.write(path, SOURCE)
    return path


def same(found) -> bool:
    params = made.plain(place(found))
    return (
        found.spec == SOURCE.spec
        and found.digest == "abc"
        and found.tokenizer().encode("the end").ids
        == SOURCE.words.encode("the end").ids
        and params.keys() == PARAMS.keys()
        and all(params[k].tobytes() == v.tobytes() for k, v in PARAMS.items())
    )


def test_a_model_is_read_as_written_and_nothing_partial_is_left(tmp_path):
    path = tmp_path / "model"
    cache.write(path, SOURCE)
    assert same(cache.read(path))
    cache.write(path, SOURCE)
    assert same(cache.read(path))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_layer_has_a_file(whole):
    layers = [f"layer_{i:03}.safetensors" for i in range(4)]
    names = ["index.json", *layers, "tables.safetensors", "tokenizer"]
    assert sorted(p.name for p in whole.iterdir()) == names


def test_what_is_absent_is_none(tmp_path):
    assert cache.read(tmp_path / "nope") is None
    assert cache.read(tmp_path) is None


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_noticed_or_changes_nothing(whole, data):
    path = data.draw(st.sampled_from(files(whole)))
    was = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(was) - 1)), data.draw(st.integers(0, 7))
    try:
        path.write_bytes(was[:at] + bytes([was[at] ^ 1 << bit]) + was[at + 1 :])
        found = cache.read(whole)
        assert found is None or same(found)
    finally:
        path.write_bytes(was)


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "add"])
def test_a_damaged_folder_is_none(whole, tmp_path, damage):
    for i, name in enumerate(p.relative_to(whole) for p in files(whole)):
        copy = tmp_path / str(i)
        shutil.copytree(whole, copy)
        path = copy / name
        data = path.read_bytes()
        if damage == "remove":
            path.unlink()
        elif damage == "add":
            (path.parent / "more").write_bytes(data)
        else:
            path.write_bytes(data[:-1] if damage == "truncate" else b"")
        assert cache.read(copy) is None


def test_a_write_that_fails_leaves_nothing(tmp_path):
    less = {k: v for k, v in MODEL.params.items() if k != "mlp/down"}
    with pytest.raises(KeyError):
        cache.write(tmp_path / "m", dataclasses.replace(SOURCE, params=less))
    assert not list(tmp_path.iterdir())


def test_entries_lie_in_the_directory_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "own"))
    assert cache.entry("abc").parent == tmp_path / "own" == cache.directory()
    assert cache.entry("abc") != cache.entry("abd")


def test_a_cache_that_was_damaged_is_made_again_and_a_sound_one_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))
    path, said = str(made.gguf_file(tmp_path / "m.gguf", MODEL)), []

    def converted() -> bool:
        said.clear()
        found = mu.load(path, progress=lambda what, *_: said.append(what))
        params = made.plain(found.params)
        assert all(params[k].tobytes() == v.tobytes() for k, v in PARAMS.items())
        return "converting the weights" in said

    assert converted() and not converted()
    (entry,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    layer = entry / "layer_002.safetensors"
    layer.write_bytes(layer.read_bytes()[:-1])
    assert converted() and not converted()
    kinds = {p.suffix for p in (tmp_path / "cache").iterdir()}
    assert kinds == {"", ".lock"}


def test_two_processes_convert_a_file_once_and_agree(tmp_path):
    path = made.gguf_file(tmp_path / "model.gguf", MODEL)
    code = (
        "import sys, hashlib, numpy as np, mu_jax as mu\n"
        "said = []\n"
        "m = mu.load(sys.argv[1], progress=lambda what, *_: said.append(what))\n"
        "a = m.params['mlp/down']\n"
        "a = np.asarray(a.unwrap(*a.named_shape))\n"
        "converted = 'converting the weights' in said\n"
        "print(converted, hashlib.sha256(a.tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "MU_JAX_CACHE": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    converted, digests = zip(*(p.communicate()[0].split() for p in both), strict=True)
    assert sorted(converted) == ["False", "True"]
    assert set(digests) == {hashlib.sha256(PARAMS["mlp/down"].tobytes()).hexdigest()}
    left = sorted(f.suffix for f in (tmp_path / "cache").iterdir())
    assert left == ["", ".lock"]


KILLED = """
import os, signal, sys
import mu_jax as mu
def progress(what, done, total):
    if (what, done) == ("converting the weights", 2):
        print("working", flush=True)
        if sys.argv[2] == "wait":
            sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
mu.load(sys.argv[1], progress=progress)
"""


def test_what_a_killed_conversion_left_goes_at_the_next_use(tmp_path, monkeypatch):
    """Of whatever model, but not what another process is at."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MU_JAX_CACHE", str(folder))

    def begin(name, how):
        made.gguf_file(tmp_path / name, made.model(name.removesuffix(".gguf")))
        args = [sys.executable, "-c", KILLED, str(tmp_path / name), how]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(args, **pipes)
        assert process.stdout.readline() == b"working\n"
        return process

    killed = begin("gemma2.gguf", "die")
    killed.communicate()
    assert killed.returncode == -9
    (left,) = folder.glob("*.partial")
    at_work = begin("llama3.gguf", "wait")
    (going,) = folder.glob("*.partial")
    assert left != going
    mu.load(str(made.gguf_file(tmp_path / "gemma1.gguf", made.model("gemma1"))))
    assert [*folder.glob("*.partial")] == [going] and any(going.iterdir())
    at_work.communicate()
    mu.load(str(tmp_path / "llama3.gguf"))
    kinds = {p.suffix for p in folder.iterdir()}
    assert kinds == {"", ".lock"}
