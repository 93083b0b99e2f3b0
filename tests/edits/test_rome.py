"""ROME: what a rank-one edit writes, where it writes it, and what it leaves alone."""

import dataclasses

import numpy as np
import pytest

from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.devices.preemption import Preemption
from mu_jax.edits import down, values
from mu_jax.edits.covariance import Covariance
from mu_jax.edits.rome import ROME
from mu_jax.edits.subjects import align, look
from mu_jax.edits.values import Value
from mu_jax.errors import UserError
from mu_jax.selectors import Layers

pytestmark = pytest.mark.usefixtures("quick")
MODELS = pytest.mark.parametrize(
    "small", ["gemma1", "gemma2", "gemma3", "llama3"], indirect=True
)
VALUE = Value(steps=12, decay=0.0, enough=0.5)
SIZE = {"contexts": 2, "context_length": 5}
HOW = ROME(layer=2, value=VALUE, covariance=Covariance(tokens=300), **SIZE)


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


def subjects(ending):
    return align(ending[0], ending[2], *SIZE.values())


def at_subject(model, ending, fact, read=("neuron", "down")):
    rows = subjects(ending)
    seen = look(
        model.network, model.params, rows.place(model.network, fact), rows.start, read
    )
    return {kind: np.asarray(a[2], np.float64) for kind, a in seen.items()}


def wanted(model, ending, fact):
    """k, and the v* that ROME wants it to give, on the weights of `model`."""
    rows, seen = subjects(ending), at_subject(model, ending, fact)
    y = seen["down"]
    found = VALUE(
        model.network,
        model.params,
        rows.place(model.network, fact),
        rows.start,
        "down",
        2,
        float(np.linalg.norm(y)),
    )
    return seen["neuron"], y + np.asarray(found.delta, np.float64)


@pytest.fixture(scope="module")
def edits(small, middle, ending):
    """The edit of the first fact, and that of the first two."""
    return [HOW(small, middle, ending[0].rows(slice(n)), *ending[1:]) for n in (1, 2)]


@MODELS
def test_the_key_gives_the_wanted_value(small, ending, edits):
    key, value = wanted(small, ending, 0)
    got = key @ plain(edits[0].params["mlp/down"])[0]
    assert np.linalg.norm(got - value) < 1e-4 * np.linalg.norm(value)
    moved = np.linalg.norm(value - at_subject(small, ending, 0)["down"])
    assert moved > 0.1 * np.linalg.norm(value)


@MODELS
def test_each_fact_finds_the_weights_that_earlier_ones_left(small, ending, edits):
    key, value = wanted(small.update(edits[0]), ending, 1)
    got = key @ plain(edits[1].params["mlp/down"])[0]
    assert np.linalg.norm(got - value) < 1e-4 * np.linalg.norm(value)


@MODELS
def test_the_model_says_so_where_the_subject_ends(small, ending, edits):
    _, value = wanted(small, ending, 0)
    got = at_subject(small.update(edits[0]), ending, 0)["down"]
    assert np.linalg.norm(got - value) < 1e-4 * np.linalg.norm(value)


@MODELS
def test_a_fact_changes_the_matrix_by_rank_one(small, edits):
    old = plain(small.params["mlp/down"])[2].astype(np.float64)
    news = [plain(edit.params["mlp/down"])[0] for edit in edits]
    for number, (new, before) in enumerate(zip(news, (old, news[0]), strict=True)):
        sizes = np.linalg.svd(new - before, compute_uv=False)
        assert sizes[1] < 1e-5 * sizes[0], number


@MODELS
def test_every_other_tensor_stays_bit_identical(small, edits):
    edited = small.update(edits[1])
    for label, old in small.params.items():
        if label != "mlp/down":
            assert edited.params[label] is old
    old, new = (plain(model.params["mlp/down"]) for model in (small, edited))
    changed = [i for i in range(small.spec.layers) if (old[i] != new[i]).any()]
    assert changed == [2]


@MODELS
def test_the_edit_names_what_it_changed_and_what_that_costs(small, middle, edits):
    chosen = edits[0].selection
    assert chosen.tensors == (("mlp/down", (2,)),)
    assert chosen.n_params == plain(edits[0].params["mlp/down"]).size
    assert (chosen.name, chosen.origin) == (middle.name, middle.origin)


@MODELS
def test_the_injected_answer_becomes_likelier(small, ending, edits):
    """What the optimisation ends at is what the edited model says."""
    rows, edited = subjects(ending), small.update(edits[0])
    at = rows.place(small.network, 0), rows.start, "down", 2, 1.0
    (record,) = edits[0].history
    before, after = (
        float(VALUE(model.network, model.params, *at).before)
        for model in (small, edited)
    )
    assert before == pytest.approx(record["loss"], abs=1e-5)
    assert record["loss_after"] < before - 0.5
    assert after < before - 0.5
    assert record["moved"] <= VALUE.clamp * (1 + 1e-6)


@MODELS
def test_an_interrupted_edit_goes_on_to_the_same_bits(
    small, middle, ending, edits, tmp_path
):
    kept = SnapshotFolder(tmp_path / "s", "f", 1, Preemption(), lambda _: None)
    HOW(small, middle, ending[0].rows(slice(1)), *ending[1:], snapshots=kept)
    resumed = HOW(small, middle, ending[0].rows(slice(2)), *ending[1:], snapshots=kept)
    kept.close()
    one, other = (plain(e.params["mlp/down"]) for e in (edits[1], resumed))
    assert one.tobytes() == other.tobytes()
    assert [r["step"] for r in resumed.history] == [0, 1]


@MODELS
def test_one_program_serves_all_facts_layers_and_settings(small, middle, ending, edits):
    compiled = values._find._cache_size(), look._cache_size(), down._add._cache_size()
    value = Value(steps=3, learning_rate=0.1, decay=0.2, clamp=0.3, enough=0.0)
    how = dataclasses.replace(HOW, layer=1, value=value)
    edit = how(small, middle, ending[0], *ending[1:])
    again = values._find._cache_size(), look._cache_size(), down._add._cache_size()
    assert again == compiled
    assert all(r["moved"] <= 0.3 * (1 + 1e-5) for r in edit.history)
    assert all(r["value_steps"] == 3 for r in edit.history)


def test_a_layer_is_the_lowest_one_unless_it_is_named(tiny):
    chosen = Layers(mlp=(0, 2, 3, 6))(None, tiny.sizes)
    assert ROME()._layer(chosen) == 0
    assert ROME(layer=6)._layer(chosen) == 6
    with pytest.raises(UserError, match=r"rome\.layer = 1; expected one of 0, 2, 3, 6"):
        ROME(layer=1)._layer(chosen)


def test_a_selection_without_a_down_projection_is_refused(tiny, ending):
    chosen = Layers(attn=(1,))(None, tiny.sizes)
    with pytest.raises(UserError, match=r"expected MLP output tensors \(mlp/down\)"):
        ROME()(tiny, chosen, *ending)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ROME(contexts=-1), "-1 contexts"),
        (lambda: Value(steps=0), "value.steps = 0"),
        (lambda: Value(clamp=-1.0), "value.clamp = -1"),
        (lambda: Value(decay=-0.1), "value.decay"),
        (lambda: Covariance(shrinkage=0.0), "covariance.shrinkage"),
        (lambda: Covariance(tokens=0), "covariance.tokens"),
    ],
)
def test_a_knob_out_of_range_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
