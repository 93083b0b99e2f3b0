"""Kinds of descent beside the gradient edit: what each trains, and what it leaves."""

import dataclasses

import numpy as np
import pytest

from mu_jax import selectors
from mu_jax.edits import losses
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.mask import WeightMask, scattered, zeroed
from mu_jax.edits.rmu import RMU
from mu_jax.edits.staged import Layered, Sequential
from mu_jax.edits.step import update
from mu_jax.errors import UserError
from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.facts.tokens import prompts
from mu_jax.selectors.selections import union

pytestmark = pytest.mark.usefixtures("quick")
KNOBS = {"learning_rate": 2e-2, "forget_batch": 4, "retain_batch": 4, "text_batch": 1}


@pytest.fixture(scope="module")
def data(tiny):
    """Eight prompts to forget, twelve to retain, and text."""
    source = Sports(forget=8)
    found = source.split([(f, 1.0) for f in source.load()[:24]])
    asked = [source.templates[0](f) for f in (*found.forget, *found.retain)]
    both = prompts(asked, tiny.tokenizer)
    text, _ = Text(length=16).load(tiny.tokenizer)
    return both.rows(slice(8)), both.rows(slice(8, None)), text


@pytest.fixture(scope="module")
def selection(tiny):
    chosen = selectors.Layers(mlp=(2, 3), attn=(3,))(None, tiny.sizes)
    return dataclasses.replace(chosen, name="chosen")


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


def changes(model, edit) -> dict[tuple[str, int], np.ndarray]:
    """(label, layer) -> what the edit adds to that matrix, two-dimensional."""
    out = {}
    for label, layers in edit.selection.tensors:
        old = plain(model.params[label])[list(layers)]
        for layer, change in zip(layers, plain(edit.params[label]) - old, strict=True):
            out[label, layer] = change
    return out


def test_numbers_are_data_to_one_compiled_step(tiny, data, selection):
    how = GradientEdit(steps=1, **KNOBS)
    how(tiny, selection, *data)
    before = update._cache_size()
    for change in ({"learning_rate": 1e-3}, {"steps": 2}, {"seed": 3}):
        dataclasses.replace(how, **change)(tiny, selection, *data)
    assert update._cache_size() == before


@pytest.fixture(scope="module")
def rmu(tiny, data, selection):
    return RMU(steps=8, **KNOBS)(tiny, selection, *data)


def test_rmu_steers_forgotten_prompts_and_holds_the_rest(tiny, rmu, data):
    first, last = rmu.history[0], rmu.history[-1]
    assert first["retain"] == first["text"] == 0  # nothing has moved yet
    assert last["forget"] < 0.9 * first["forget"]
    model = tiny.update(rmu)
    moved = []
    for asked in data[:2]:
        a, b = (m.run(asked, read=("resid",)).reads["resid"][3] for m in (tiny, model))
        last = np.asarray(asked.last)
        gap = np.linalg.norm(np.asarray(a - b), axis=-1)
        moved.append(gap[np.arange(len(last)), last].mean())
    assert moved[0] > moved[1]


def test_rmu_below_its_edit_is_refused(tiny, data, selection):
    with pytest.raises(UserError, match=r"RMU after layer 1.*from 2"):
        RMU(layer=1, **KNOBS)(tiny, selection, *data)


def test_layers_forget_what_the_ones_before_forgot_and_retain_the_rest(data):
    how = Layered(steps=2, parts=4, **KNOBS)
    forget, keep, _ = data
    cuts = how.cuts(len(forget.tokens))
    for part in range(4):
        now, kept = how.lesson(part, cuts, forget, keep)
        assert len(now.tokens) == 2 * (part + 1)
        assert len(kept.tokens) == len(keep.tokens) + 8 - 2 * (part + 1)
        np.testing.assert_array_equal(now.tokens, forget.tokens[: len(now.tokens)])
    assert how.total == 8


def test_parts_of_unequal_size_are_refused(data):
    with pytest.raises(UserError, match=r"8 forgotten facts in 3 parts"):
        Sequential(parts=3).cuts(8)


@pytest.fixture(scope="module")
def sequence(tiny, data):
    """Two parts, each with MLPs of its own: (own selections, edit after each step)."""
    own = tuple(selectors.Layers(mlp=(i,))(None, tiny.sizes) for i in (2, 4))
    both = dataclasses.replace(union(own, tiny.sizes, "both"), name="both")
    how = Sequential(steps=2, parts=2, selections=own, **KNOBS)
    steps = []
    for step in how.walk(tiny, both, *data):
        steps.append({k: v.copy() for k, v in changes(tiny, step()).items()})
    return how, both, steps


def test_each_part_of_a_sequence_changes_its_own_tensors_alone(sequence):
    _, _, steps = sequence
    after = lambda number, layer: [
        c for (_, i), c in steps[number].items() if i == layer
    ]
    assert len(steps) == 5
    assert all((c != 0).mean() > 0.9 for c in after(2, 2))
    assert all((c == 0).all() for c in after(2, 4))
    for before, later in zip(after(2, 2), after(4, 2), strict=True):
        np.testing.assert_array_equal(before, later)  # the first part's stay
    assert all((c != 0).mean() > 0.9 for c in after(4, 4))


def test_a_sequence_is_one_edit_after_the_other(tiny, data, sequence):
    """With fresh optimisers and schedules, and rows of its own part each."""
    how, _, steps = sequence
    forget, keep, text = data
    model, made = tiny, []
    for part, (own, cut) in enumerate(
        zip(how.selections, how.cuts(len(forget.tokens)), strict=True)
    ):
        alone = GradientEdit(steps=2, **KNOBS)
        pick = lambda step, f, k, t, part=part: dataclasses.replace(how).batch(
            step + 2 * part, forget, keep, t
        )
        object.__setattr__(alone, "batch", pick)
        edit = alone(model, own, forget.rows(cut), keep, text)
        made.append(changes(tiny, edit))
        model = model.update(edit)
    for part in made:
        for where, change in part.items():
            np.testing.assert_allclose(steps[-1][where], change, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def masked(tiny, data, selection):
    loss = losses.Inject()  # a random model has nothing to forget
    how = WeightMask(steps=6, loss=loss, **{**KNOBS, "learning_rate": 0.1})
    return how(tiny, selection, *data)


def test_a_mask_stays_between_nothing_and_all(tiny, masked):
    for label, layers in masked.selection.tensors:
        old = plain(tiny.params[label])[list(layers)]
        mask = plain(masked.params[label]) / old
        assert -1e-6 <= mask.min() < 0.9 and mask.max() <= 1 + 1e-6
    assert masked.history[0]["masked"] == 0 < masked.history[-1]["masked"]
    assert masked.history[-1]["forget"] < masked.history[0]["forget"]


def test_the_most_masked_weights_go_and_no_others(tiny, masked, selection):
    gone = zeroed(tiny.params, masked, 100)
    old = {k: plain(a) for k, a in tiny.selected(selection).items()}
    new = {k: plain(a) for k, a in gone.params.items()}
    zero = {k: (new[k] == 0) & (old[k] != 0) for k in new}
    assert sum(z.sum() for z in zero.values()) == 100
    assert all((new[k] == old[k])[~zero[k]].all() for k in new)
    mask = {k: plain(masked.params[k]) / old[k] for k in new}
    worst = max(mask[k][zero[k]].max() for k in new if zero[k].any())
    assert worst <= min(mask[k][~zero[k]].min() for k in new) + 1e-6


def test_the_control_takes_as_many_at_random(tiny, selection):
    new = scattered(tiny.params, selection, 50, seed=1).params
    old = tiny.selected(selection)
    assert sum((plain(new[k]) != plain(old[k])).sum() for k in new) == 50
    again = scattered(tiny.params, selection, 50, seed=1).params
    assert all((plain(new[k]) == plain(again[k])).all() for k in new)
