"""The gradient edit: what it changes, what it leaves, and that its gradient is right.

Laws hold for a run of layers, for scattered tensors, and for every MLP of the model.
"""

import dataclasses

import jax
import numpy as np
import pytest
from rounding import double

from mu_jax import selectors
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Truth, next_token
from mu_jax.errors import UserError
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.facts.tokens import prompts, shared_prefix
from mu_jax.model.network import take_last
from mu_jax.model.params import put, take

pytestmark = pytest.mark.usefixtures("quick")
EDIT = GradientEdit(
    steps=6, learning_rate=2e-2, forget_batch=6, retain_batch=8, text_batch=2
)
SELECTIONS = {
    "contiguous": selectors.Layers(mlp=(2, 3, 4)),
    "scattered": selectors.Layers(mlp=(1, 5), attn=(3, 5)),
    "all": selectors.AllMLPs(),
}


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


def bits(params) -> dict[str, bytes]:
    return {label: plain(array).tobytes() for label, array in params.items()}


@pytest.fixture(scope="module")
def data(tiny):
    """Forget and retain prompts of one width, and text."""
    source = Sports(forget=6)
    found = source.split([(f, 1.0) for f in source.load()[:40]])
    asked = [source.templates[0](f) for f in (*found.forget, *found.retain)]
    both = prompts(asked, tiny.tokenizer)
    text, _ = Text(length=16).load(tiny.tokenizer)
    return both.rows(slice(6)), both.rows(slice(6, None)), text


@pytest.fixture(scope="module", params=["scattered", "all"])
def selection(request, tiny):
    chosen = SELECTIONS[request.param](None, tiny.sizes)
    return dataclasses.replace(chosen, name=request.param)


@pytest.fixture(scope="module")
def before(tiny):
    return bits(tiny.params)


@pytest.fixture(scope="module")
def edit(tiny, data, selection, before):
    return EDIT(tiny, selection, *data)


@pytest.fixture(scope="module")
def edited(tiny, edit):
    return tiny.update(edit)


def test_every_unselected_tensor_stays_bit_identical(tiny, selection, edited):
    chosen = dict(selection.tensors)
    for label, old in tiny.params.items():
        if label not in chosen:
            assert plain(old).tobytes() == plain(edited.params[label]).tobytes()
            continue
        assert next(iter(old.named_shape)) == "layer"
        for layer in set(range(tiny.spec.layers)) - set(chosen[label]):
            new = plain(edited.params[label])[layer]
            assert plain(old)[layer].tobytes() == new.tobytes(), (label, layer)


def test_every_selected_tensor_is_changed(tiny, selection, edited):
    for label, layers in selection.tensors:
        old, new = plain(tiny.params[label]), plain(edited.params[label])
        assert old.shape == new.shape and old.dtype == new.dtype
        for layer in layers:
            assert (old[layer] != new[layer]).mean() > 0.9, (label, layer)
            assert np.isfinite(new[layer]).all()


def test_the_frozen_model_is_untouched(tiny, edited, before):
    assert bits(tiny.params) == before


def test_embeddings_and_norms_are_shared_with_the_model(tiny, selection, edited):
    for label in tiny.params.keys() - dict(selection.tensors).keys():
        assert edited.params[label] is tiny.params[label]


def test_an_edit_holds_the_selection_and_nothing_else(tiny, selection, edit):
    assert edit.params.keys() == dict(selection.tensors).keys()
    for label, layers in selection.tensors:
        shape = dict(tiny.params[label].named_shape) | {"layer": len(layers)}
        assert dict(edit.params[label].named_shape) == shape
    sizes = [plain(array).size for array in edit.params.values()]
    assert sum(sizes) == selection.n_params


def test_optimiser_state_exists_for_the_selection_only(tiny, selection):
    taken = tiny.selected(selection)
    state = jax.eval_shape(EDIT.optimizer.init, taken)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(taken))
    assert sorted(leaf.shape for leaf in moments) == sorted(shapes * 2)
    assert sum(leaf.size for leaf in moments) == 2 * selection.n_params


def test_the_objective_runs_the_updated_model(tiny, data, edit, edited):
    forget, keep, _ = data
    prefix = shared_prefix(forget, keep)
    stream, _ = jax.jit(tiny.network.stream, static_argnames=("prefix", "selection"))(
        tiny.params,
        forget.tokens,
        forget.valid,
        prefix=prefix,
        selection=edit.selection,
        edited=dict(edit.params),
    )
    got = tiny.network.logits(tiny.params, take_last(stream, forget.last - prefix))
    np.testing.assert_allclose(got, edited.run(forget).logits, rtol=0, atol=1e-5)


def whole(params, network, batch):
    """The objective as the method states it: a plain model, no prefix, no selection."""
    asked, n = batch.prompts, EDIT.forget_batch
    stream, _ = network.stream(params, asked.tokens, asked.valid)
    logits = network.logits(params, take_last(stream, asked.last))
    read, _ = network.stream(params, batch.text)
    spelled = network.logits(params, read[:, :-1])
    return (
        EDIT.loss.weight * EDIT.loss(logits[:n], asked.rows(slice(n)))
        + Truth()(logits[n:], asked.rows(slice(n, None)))
        + next_token(spelled, batch.text).mean()
    )


@pytest.fixture(scope="module")
def gradient_of_the_whole():
    return jax.jit(jax.value_and_grad(whole), static_argnums=1)


@pytest.mark.parametrize(
    ("name", "shared"),
    [("contiguous", True), ("scattered", True), ("scattered", False)],
)
def test_the_gradient_is_that_of_the_whole_model(
    float64, tiny, data, gradient_of_the_whole, name, shared
):
    tiny, (forget, keep, _) = double(tiny), data
    selection = SELECTIONS[name](None, tiny.sizes)
    tensors = dict(selection.tensors)
    prefix = shared_prefix(forget, keep) if shared else 0
    batch = EDIT.batch(3, *data)
    new = jax.tree.map(lambda a: a * 1.1, tiny.selected(selection))
    params = put(tiny.params, tensors, new)
    loss, everything = gradient_of_the_whole(params, tiny.network, batch)
    want = take(everything, tensors)
    gradient = jax.jit(jax.grad(EDIT.objective, has_aux=True), static_argnums=(1, 2, 3))
    got, record = gradient(new, tiny.network, selection, prefix, tiny.params, batch)
    np.testing.assert_allclose(record["loss"], loss, rtol=1e-12)
    assert got.keys() == tensors.keys()  # for the selection, and for nothing else
    for label in tensors:
        a, b = plain(got[label]), plain(want[label])
        assert a.shape == b.shape
        for one, other in zip(a, b, strict=True):  # each layer at its own scale
            scale = np.abs(other).max()
            assert scale > 0
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * scale)


@pytest.fixture(scope="module")
def full(tiny, data):
    with jax.enable_x64(True):
        return slope(EDIT, double(tiny), data)


def slope(edit, model, data):
    """The gradient of a step of scattered tensors, and its losses."""
    selection = SELECTIONS["scattered"](None, model.sizes)
    prefix = shared_prefix(*data[:2])
    masters = jax.tree.map(lambda a: a * 1.1, model.selected(selection))
    return jax.jit(edit.gradient, static_argnums=(1, 2, 3))(
        masters, model.network, selection, prefix, model.params, edit.batch(3, *data)
    )


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"remat": True}], ids=str)
def test_parts_and_remat_give_the_gradient_of_the_full_batch(
    float64, tiny, data, full, changes
):
    got, record = slope(dataclasses.replace(EDIT, **changes), double(tiny), data)
    for name, value in full[1].items():
        np.testing.assert_allclose(record[name], value, rtol=1e-12)
    for label, want in full[0].items():
        for one, other in zip(plain(got[label]), plain(want), strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * scale)


def test_the_loss_falls(edit):
    first, last = edit.history[0], edit.history[-1]
    assert last["forget"] < 0.8 * first["forget"]
    assert last["loss"] < first["loss"]
    assert [record["step"] for record in edit.history] == list(range(EDIT.steps))


def test_the_injected_answer_becomes_likelier(tiny, data, edited):
    forget = data[0]
    p = [
        np.take_along_axis(
            np.asarray(jax.nn.softmax(model.run(forget).logits)),
            forget.foil[:, None],
            1,
        ).mean()
        for model in (tiny, edited)
    ]
    assert p[1] > 2 * p[0]


def test_the_same_seed_gives_the_same_bits(tiny, data, selection, edit):
    again = EDIT(tiny, selection, *data)
    assert bits(again.params) == bits(edit.params)
    losses = lambda made: [{**r, "seconds": 0} for r in made.history]
    assert losses(again) == losses(edit)


@pytest.mark.parametrize("remat", [False, True])
def test_a_step_in_parts_is_the_step(tiny, data, selection, remat):
    """Gradient and losses, on the same rows; micro-batches add up exactly."""
    parts = dataclasses.replace(EDIT, accumulate=2, remat=remat)
    prefix = shared_prefix(*data[:2])
    taken = tiny.selected(selection)
    got = {}
    for how in (EDIT, parts):
        gradient = jax.jit(how.gradient, static_argnums=(1, 2, 3))
        batch = how.batch(2, *data)
        got[how] = gradient(taken, tiny.network, selection, prefix, tiny.params, batch)
    (whole, losses), (summed, again) = got[EDIT], got[parts]
    for key in losses:
        np.testing.assert_allclose(again[key], losses[key], rtol=1e-5)
    for label in whole:
        a, b = plain(whole[label]), plain(summed[label])
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


def test_parts_hold_the_rows_of_the_step_each_once(data):
    parts = dataclasses.replace(EDIT, accumulate=2)
    one, several = EDIT.batch(1, *data), parts.batch(1, *data)
    flat = np.asarray(several.prompts.tokens).reshape(-1, one.prompts.tokens.shape[1])
    assert sorted(map(bytes, flat)) == sorted(map(bytes, one.prompts.tokens))
    n = EDIT.forget_batch
    foils = np.asarray(several.prompts.foil)[:, : n // 2]
    assert sorted(foils.ravel()) == sorted(one.prompts.foil[:n])
    assert several.text.shape == (2, EDIT.text_batch // 2, data[2].shape[1])


def test_parts_have_to_divide_the_rows():
    with pytest.raises(UserError, match=r"edit.accumulate = 4 with edit.forget_batch"):
        dataclasses.replace(EDIT, accumulate=4)


class Memory:
    """Snapshots in memory, every step; `stop` raises like a kill after that step."""

    def __init__(self, stop=None):
        self.kept, self.stop = None, stop

    def restore(self, like):
        if self.kept is None:
            return None
        leaves, history = self.kept
        return jax.tree.unflatten(jax.tree.structure(like), leaves), list(history)

    def save(self, state, history):
        self.kept = [np.array(leaf) for leaf in jax.tree.leaves(state)], list(history)
        if len(history) == self.stop:
            raise KeyboardInterrupt


def test_an_edit_taken_up_ends_with_the_same_bits(tiny, data, selection, edit):
    memory = Memory(stop=4)
    with pytest.raises(KeyboardInterrupt):
        EDIT(tiny, selection, *data, snapshots=memory)
    memory.stop = None
    resumed = EDIT(tiny, selection, *data, snapshots=memory)
    assert bits(resumed.params) == bits(edit.params)
    losses = lambda made: [{**r, "seconds": 0} for r in made.history]
    assert losses(resumed) == losses(edit)


def test_steps_draw_batches_without_regard_to_each_other(data):
    forget, keep, text = data
    batch = EDIT.batch(4, *data)
    again = EDIT.batch(4, *data)
    assert jax.tree.all(jax.tree.map(np.array_equal, batch, again))
    n = EDIT.forget_batch
    known = {row.tobytes() for row in forget.tokens}
    assert {row.tobytes() for row in batch.prompts.tokens[:n]} <= known
    known = {row.tobytes() for row in keep.tokens}
    assert {row.tobytes() for row in batch.prompts.tokens[n:]} <= known
    assert {row.tobytes() for row in batch.text} <= {row.tobytes() for row in text}


@pytest.mark.parametrize("loss", [3, None, Truth])
def test_a_loss_that_is_none_is_refused(loss):
    for term in ("loss", "retain"):
        with pytest.raises(UserError, match=rf"edit.{term} = .*expected a Loss"):
            GradientEdit(**{term: loss})
