"""Pointers of git-lfs, wherever a file is expected."""

import made_checkpoints as made
import pytest

from mu_jax.checkpoints import delta_file, pointer
from mu_jax.checkpoints.gguf import file as gguf
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.checkpoints.safetensors_file import places
from mu_jax.errors import UserError

POINTER = f"""\
version https://git-lfs.example/spec/v1
oid sha256:{"0" * 64}
size 12345
"""


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "index"]
)
def test_in_a_hugging_face_directory(tmp_path, name):
    folder = made.directory(tmp_path / "model", made.model("llama3"))
    if name == "index":
        (folder / "model.safetensors").unlink()
        name = "model.safetensors.index.json"
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a pointer of git-lfs.*lfs pull"):
        open_folder(folder).tokenizer()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("m.gguf", gguf.open_file),
        ("m.gguf", gguf.sha256),
        ("m.safetensors", places),
        ("delta.safetensors", delta_file.read),
        ("tokenizer.model", lambda path: official_dir.tokenizer(path.parent)),
    ],
)
def test_in_place_of_one_file(tmp_path, name, read):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a pointer of git-lfs.*lfs pull"):
        read(tmp_path / name)


def test_what_is_none(tmp_path):
    for n, text in enumerate(["", "version 2", "x" + POINTER, POINTER + "x" * 2000]):
        (tmp_path / str(n)).write_text(text)
        assert not pointer.is_pointer(tmp_path / str(n))
    assert not pointer.is_pointer(tmp_path) and not pointer.is_pointer(tmp_path / "no")
