"""GGUF files in parts: read as one, whichever part is named."""

import shutil

import made_checkpoints as made
import pytest

import mu_jax as mu
from mu_jax.checkpoints.gguf import file as gguf
from mu_jax.checkpoints.source import place
from mu_jax.errors import UserError
from mu_jax.load import identity

MODEL = made.model("llama3")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    made.gguf_file(folder / "m.gguf", MODEL, split=15)
    return folder


@pytest.fixture
def files(split, tmp_path):
    shutil.copytree(split, tmp_path / "copy")
    found = sorted((tmp_path / "copy").iterdir())
    assert [f.name for f in found] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    return found


def test_any_part_stands_for_the_model(files, tmp_path, monkeypatch):
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))
    wanted = made.plain(MODEL.params)
    for file in files:
        source = gguf.open_file(file)
        for label, value in made.plain(place(source)).items():
            assert value.tobytes() == wanted[label].tobytes(), label
    assert made.plain(mu.load(str(files[1])).params).keys() == wanted.keys()


def test_the_digest_is_of_all_parts(files):
    names = [(gguf.sha256(file), identity(str(file))) for file in files]
    assert len(set(names)) == 1
    data = files[2].read_bytes()
    files[2].write_bytes(data[:-1] + b"x")
    assert gguf.sha256(files[0]) != names[0][0]
    assert identity(str(files[0])) != names[0][1]


def test_a_missing_part_is_named(files):
    files[1].unlink()
    with pytest.raises(UserError, match=r"no file .*m-00002-of-00003\.gguf.* 3 parts"):
        gguf.open_file(files[0])


def test_parts_that_disagree_are_refused(files, tmp_path):
    first, second, third = (file.read_bytes() for file in files)
    for data, message in (
        (third, r"split\.no is 2, not 1"),
        (first, r"split\.no is 0, not 1"),
    ):
        files[1].write_bytes(data)
        with pytest.raises(UserError, match=rf"m-00002-of-00003\.gguf: {message}"):
            gguf.open_file(files[0])
    files[1].write_bytes(second)
    longer = tmp_path / "longer"
    longer.mkdir()
    made.gguf_file(longer / "m.gguf", MODEL, split=10)
    shutil.copy(longer / "m-00002-of-00004.gguf", files[1])
    with pytest.raises(UserError, match=r"split\.count is 4, not 3"):
        gguf.open_file(files[0])
    alone = files[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(UserError, match=r"alone\.gguf: split\.count is 3, not 1"):
        gguf.open_file(alone)


def test_a_number_of_no_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="a number from 1 to 3"):
        gguf.open_file(tmp_path / "m-00004-of-00003.gguf")
