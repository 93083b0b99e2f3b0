"""An edit on disk."""

import dataclasses

import jax
import numpy as np
import pytest

from mu_jax.checkpoints import edits
from mu_jax.errors import UserError
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_spec


@pytest.fixture(scope="module")
def selection(tiny):
    return Layers(mlp=(1, 5), attn=(3,))(None, tiny.sizes)


@pytest.fixture
def saved(tmp_path, tiny, selection):
    params = tiny.selected(selection)
    edits.save(tmp_path / "params", params)
    return tmp_path / "params", params


def plain(array) -> np.ndarray:
    return np.asarray(array.unwrap(*array.named_shape))


def test_an_edit_is_restored_bit_for_bit(saved, tiny, selection):
    path, params = saved
    found = edits.restore(path, selection, tiny.spec)
    assert found.keys() == params.keys()
    for label, array in params.items():
        assert found[label].named_shape == array.named_shape
        assert plain(found[label]).tobytes() == plain(array).tobytes()


def test_a_restored_edit_runs_what_was_compiled_for_the_model(saved, tiny, selection):
    """Arrays bound to a device are compiled for once more."""
    restored = edits.restore(saved[0], selection, tiny.spec)
    program = jax.jit(lambda params: [a.data_array.sum() for a in params.values()])
    program(tiny.selected(selection)), program(restored)
    assert program._cache_size() == 1


def test_saving_again_replaces_the_edit(saved, tiny):
    path, _ = saved
    other = Layers(mlp=(0,))(None, tiny.sizes)
    edits.save(path, tiny.selected(other))
    assert edits.restore(path, other, tiny.spec).keys() == dict(other.tensors).keys()
    assert [p.name for p in path.parent.iterdir()] == ["params"]


@pytest.mark.parametrize(
    "chosen", [Layers(mlp=(1,)), Layers(mlp=(1, 5)), Layers(mlp=(1, 5), attn=(2, 3))]
)
def test_another_selection_is_refused(saved, tiny, chosen):
    with pytest.raises(UserError, match=r"params holds .*edit again"):
        edits.restore(saved[0], chosen(None, tiny.sizes), tiny.spec)


def test_another_model_is_refused(saved, selection):
    spec = dataclasses.replace(tiny_spec(), neurons=64)
    with pytest.raises(UserError, match=r"params holds .*edit again"):
        edits.restore(saved[0], selection, spec)


def test_a_tensor_that_the_model_does_not_have_is_refused(saved, tiny, selection):
    strange = dataclasses.replace(selection, tensors=(("mlp/router", (0,)),))
    with pytest.raises(UserError, match="'mlp/router'"):
        edits.restore(saved[0], strange, tiny.spec)


def test_no_checkpoint_is_refused(tmp_path, tiny, selection):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    for name in ("nowhere", "empty", "file"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            edits.restore(tmp_path / name, selection, tiny.spec)


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
def test_a_damaged_checkpoint_is_refused(saved, tiny, selection, damage):
    path, _ = saved
    for file in files(path):
        data = file.read_bytes()
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    with pytest.raises(UserError, match="cannot be read"):
        edits.restore(path, selection, tiny.spec)


def test_one_damaged_file_changes_nothing_or_is_one_line(saved, tiny, selection, capfd):
    """Cut, missing, or JSON of another kind."""
    path, params = saved
    refused = 0
    for file in files(path):
        data = file.read_bytes()
        json = data[:1] == b"{"
        for damaged in (b"[" * 100_000,) if json else (data[: len(data) // 2], None):
            file.unlink(missing_ok=True)
            if damaged is not None:
                file.write_bytes(damaged)
            try:
                found = edits.restore(path, selection, tiny.spec)
                for label, array in params.items():
                    assert plain(found[label]).tobytes() == plain(array).tobytes()
            except UserError as error:
                assert "\n" not in str(error) and "cannot be read" in str(error)
                refused += 1
        file.write_bytes(data)
    assert refused > 3 and capfd.readouterr().err == ""
