"""Deltas: applied, reverted, compared, stacked; and the file that holds one."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from mu_jax.checkpoints import delta, delta_file
from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP, name_axes, random
from mu_jax.selectors.selections import matrices
from mu_jax.testing import tiny_model, tiny_spec
from mu_jax.types import Edit

LAYERS = 3
SPEC = tiny_spec(2, layers=LAYERS)
MATRICES = st.sets(
    st.tuples(st.sampled_from([*ATTENTION, *MLP]), st.integers(0, LAYERS - 1)),
    min_size=1,
    max_size=6,
)
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)


def model_of(dtype=jnp.float32):
    model = tiny_model(SPEC)
    return dataclasses.replace(model, params=random(SPEC, 0, dtype))


def edit_of(model, chosen, seed=0, name="edit") -> Edit:
    """New float32 values, near those of the model, for the chosen matrices."""
    selection = dataclasses.replace(matrices(chosen, model.sizes, "test"), name=name)
    rng = np.random.default_rng(seed)
    params = {}
    for label, array in model.selected(selection).items():
        plain = np.asarray(array.unwrap(*array.named_shape), np.float32)
        moved = plain + 0.01 * rng.standard_normal(plain.shape, np.float32)
        params[label] = name_axes(label, moved, model.spec)
    return Edit(selection, params, [])


def made(model, chosen, seed=0, name="edit"):
    return delta.make(model, edit_of(model, chosen, seed, name), {"seed": seed})


def bits(model) -> dict:
    return {
        label: np.asarray(a.unwrap(*a.named_shape)).tobytes()
        for label, a in model.params.items()
    }


@DTYPES
@settings(max_examples=8, deadline=None)
@given(chosen=MATRICES)
def test_revert_undoes_apply_bit_for_bit(dtype, chosen):
    model = model_of(dtype)
    change = made(model, chosen)
    edited = delta.apply(model, change)
    assert bits(edited) == bits(model.update(edit_of(model, chosen)))
    assert bits(edited) != bits(model)
    assert bits(delta.revert(edited, change)) == bits(model)


@DTYPES
@settings(max_examples=8, deadline=None)
@given(first=MATRICES, second=MATRICES)
def test_a_stack_is_one_after_the_other(dtype, first, second):
    model = model_of(dtype)
    a = made(model, first, 1, "a")
    between = delta.apply(model, a)
    b = made(between, second, 2, "b")
    both = delta.stack(a, b)
    last = delta.apply(between, b)
    assert bits(delta.apply(model, both)) == bits(last)
    assert bits(delta.revert(last, both)) == bits(model)
    assert both.changes.keys() == first | second


def test_two_edits_of_one_tensor_of_one_base_do_not_stack():
    model = model_of()
    a = made(model, [("mlp/up", 1), ("mlp/down", 0)], 1, "a")
    b = made(model, [("mlp/up", 1)], 2, "b")
    with pytest.raises(UserError, match=r"'a' and 'b' both change mlp/up of layer 1"):
        delta.stack(a, b)
    other = dataclasses.replace(b, spec="gemma3-270m")
    with pytest.raises(UserError, match="deltas of tiny-gemma2 and of gemma3-270m"):
        delta.stack(a, other)


def test_a_base_is_known_by_its_numbers_whatever_holds_them():
    half = model_of(jnp.bfloat16)
    change = made(half, [("mlp/gate", 2)])
    whole = dataclasses.replace(
        half, params={k: a.astype(jnp.float32) for k, a in half.params.items()}
    )
    edited = delta.apply(whole, change)
    np.testing.assert_array_equal(
        edited.params["mlp/gate"].data_array[2], change.changes["mlp/gate", 2].new
    )
    assert bits(delta.revert(edited, change)) == bits(whole)


def test_another_base_is_refused_by_the_tensor():
    model = model_of()
    change = made(model, [("mlp/up", 0), ("mlp/up", 2)])
    other = delta.apply(model, made(model, [("mlp/up", 2)], 5))
    for exchange, wrong in ((delta.apply, other), (delta.revert, model)):
        with pytest.raises(UserError, match=r"other values in mlp/up of layer \d"):
            exchange(wrong, change)
    with pytest.raises(UserError, match="mlp/up of layer 2"):
        delta.apply(other, change)
    for spec in (tiny_spec(2, layers=2), dataclasses.replace(SPEC, neurons=64)):
        with pytest.raises(UserError, match=r"has no mlp/up of layer \d of shape"):
            delta.apply(tiny_model(spec), change)


def test_differences():
    model = model_of()
    a = made(model, [("mlp/up", 0), ("mlp/up", 1)], 1)
    b = made(model, [("mlp/up", 1), ("mlp/down", 2)], 2)
    same = delta.diff(a, a)
    assert [row.apart for row in same] == [0, 0]
    assert [row.cosine for row in same] == pytest.approx([1, 1])
    down, first, shared = delta.diff(a, b)
    assert down.matrix == ("mlp/down", 2) and down.first is None and down.second > 0
    assert (
        first.matrix == ("mlp/up", 0) and first.second is None and first.apart is None
    )
    old, new = a.changes["mlp/up", 1]
    other = b.changes["mlp/up", 1].new
    size = np.linalg.norm
    assert shared.first == pytest.approx(size(new - old) / size(old))
    assert shared.second == pytest.approx(size(other - old) / size(old))
    assert shared.apart == pytest.approx(size(new - other) / size(old))
    angle = np.vdot(new - old, other - old) / size(new - old) / size(other - old)
    assert shared.cosine == pytest.approx(angle, abs=1e-6)


# ---- the file


@pytest.fixture(params=[jnp.float32, jnp.bfloat16], ids=str)
def written(request, tmp_path):
    model = model_of(request.param)
    change = made(model, [("mlp/up", 0), ("attention/query", 2)], name="flu")
    delta_file.write(tmp_path / "it.safetensors", change)
    return tmp_path / "it.safetensors", change


def test_a_file_gives_back_what_was_written(written):
    path, change = written
    found = delta_file.read(path)
    assert (found.spec, found.name) == ("tiny-gemma2", "flu")
    assert found.provenance == {"seed": 0}
    assert found.selection == change.selection
    for matrix, pair in change.changes.items():
        for ours, theirs in zip(pair, found.changes[matrix], strict=True):
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            assert ours.tobytes() == theirs.tobytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def parts(path):
    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata())


@pytest.mark.parametrize("n", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(written, n):
    path, _ = written
    path.write_bytes(path.read_bytes()[:n])
    with pytest.raises(UserError, match=r"it\.safetensors cannot be read"):
        delta_file.read(path)


def test_an_altered_tensor_is_named(written):
    path, _ = written
    tensors, metadata = parts(path)
    tensors["new/mlp/up/0"][0, 0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=r"it\.safetensors: new/mlp/up/0 is not what"):
        delta_file.read(path)
    del tensors["new/mlp/up/0"]
    save_file(tensors, path, metadata)
    with pytest.raises(UserError, match="new/mlp/up/0 is not what"):
        delta_file.read(path)


@pytest.mark.parametrize(
    ("key", "value"), [("spec", "gemma3-270m"), ("hashes", "{}"), ("digest", "")]
)
def test_altered_metadata_are_refused(written, key, value):
    path, _ = written
    tensors, metadata = parts(path)
    save_file(tensors, path, metadata | {key: value})
    with pytest.raises(UserError, match="its metadata is not what was written"):
        delta_file.read(path)


def forged(path, tensors, **metadata):
    """A file whose hashes are right and whose contents are not a delta's."""
    hashes = {key: delta_file._hash(value) for key, value in tensors.items()}
    described = {
        "format": "mu_jax delta 1",
        "spec": "tiny2",
        "name": "x",
        "provenance": "{}",
        "hashes": json.dumps(hashes),
        **metadata,
    }
    save_file(tensors, path, described | {"digest": delta_file._digest(described)})


ONE = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"new/mlp/up/0": ONE}, "mlp/up/0"),
        ({"new/mlp/up/0": ONE, "old/mlp/up/0": ONE[:1]}, "mlp/up/0"),
        ({"new/mlp/up/0": ONE.astype(np.float16), "old/mlp/up/0": ONE}, "mlp/up/0"),
        ({"new/mlp/up/0": ONE, "old/mlp/up/0": ONE.astype(np.int32)}, "mlp/up/0"),
        ({"new/embedder/0": ONE, "old/embedder/0": ONE}, "embedder/0"),
        ({"new/mlp/up/-1": ONE}, "new/mlp/up/-1"),
        ({"new/../mlp/up/1": ONE}, "new/../mlp/up/1"),
    ],
)
def test_a_forged_file_is_refused(tmp_path, tensors, what):
    path = tmp_path / "forged.safetensors"
    forged(path, tensors)
    with pytest.raises(UserError, match=f"{what} is not what was written"):
        delta_file.read(path)
    pair = {"new/mlp/up/0": ONE, "old/mlp/up/0": ONE}
    forged(path, pair)
    assert delta_file.read(path).changes.keys() == {("mlp/up", 0)}
    forged(path, pair, provenance="[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        delta_file.read(path)


def test_what_is_no_delta_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="no file"):
        delta_file.read(path)
    save_file({"x": ONE}, path)
    with pytest.raises(UserError, match="is not a delta"):
        delta_file.read(path)
