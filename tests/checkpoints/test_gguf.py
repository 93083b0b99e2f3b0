"""GGUF files that are not what they should be."""

import gguf as library
import numpy as np
import pytest

from mu_jax.checkpoints import gguf
from mu_jax.errors import UserError

KEYS = {
    "block_count": 1,
    "attention.head_count": 2,
    "attention.head_count_kv": 1,
    "embedding_length": 4,
    "feed_forward_length": 8,
    "attention.key_length": 4,
    "context_length": 32,
    "attention.sliding_window": 8,
}


def write(
    path, architecture: str, keys=None, tokens=("<pad>", "<eos>", "<bos>", "<unk>")
):
    writer = library.GGUFWriter(path, architecture)
    for key, value in (KEYS if keys is None else keys).items():
        writer.add_uint32(f"{architecture}.{key}", value)
    if tokens:
        writer.add_token_list(list(tokens))
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types([3] * len(tokens))
        for name, i in (("pad", 0), ("eos", 1), ("bos", 2)):
            getattr(writer, f"add_{name}_token_id")(i)
        writer.add_unk_token_id(3)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x00" * 64,
        b"GGUF",
        b"GGUF" + b"\xff" * 200,
        b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 200,
        b"GGUF" + b"\x03\x00\x00\x00" + b"\x01" + b"\x00" * 7 + b"\x7f" * 300,
        bytes(range(256)) * 4,
    ],
    ids=["empty", "text", "zeros", "magic", "version", "counts", "names", "bytes"],
)
def test_garbage_is_refused(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.gguf cannot be read as GGUF"):
        gguf.read(path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    whole = write(tmp_path / "whole.gguf", "gemma3").read_bytes()
    path = tmp_path / "short.gguf"
    for size in range(0, len(whole) - 64, 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"short\.gguf"):
            gguf.read(path)


def test_another_architecture_is_refused(tmp_path):
    path = write(tmp_path / "llama.gguf", "llama")
    with pytest.raises(UserError, match=r"a 'llama' model; expected .*gemma3"):
        gguf.read(path)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(tmp_path, key):
    keys = {k: v for k, v in KEYS.items() if k != key}
    path = write(tmp_path / "m.gguf", "gemma3", keys)
    with pytest.raises(UserError, match=rf"lacks the key gemma3\.{key}"):
        gguf.read(path)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [0, 4_000_000_000])
def test_absurd_sizes_are_refused(tmp_path, key, value):
    path = write(tmp_path / "m.gguf", "gemma3", {**KEYS, key: value})
    with pytest.raises(UserError):
        gguf.read(path)


def test_a_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocabulary"):
        gguf.read(write(tmp_path / "m.gguf", "gemma3", tokens=()))


def test_a_missing_tensor_is_named(tmp_path):
    path = write(tmp_path / "m.gguf", "gemma3")
    with pytest.raises(UserError, match=r"no tensor \S+\.weight"):
        gguf.read(path)
