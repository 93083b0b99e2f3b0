"""MEMIT: many facts at once, spread over several layers, and what is within reach."""

import dataclasses

import numpy as np
import pytest

from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.devices.preemption import Preemption
from mu_jax.edits.covariance import Covariance, Inverse
from mu_jax.edits.memit import _READ, MEMIT, nearest
from mu_jax.edits.subjects import align
from mu_jax.edits.values import Value
from mu_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")
MODELS = pytest.mark.parametrize("small", ["gemma1", "gemma3"], indirect=True)
HOW = MEMIT(
    value=Value(steps=8, decay=0.0, enough=1.0),
    covariance=Covariance(tokens=300),
    weight=1e-4,
    contexts=2,
    context_length=5,
)


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


class Last:
    """Keeps the newest state in memory."""

    def restore(self, like):
        return None

    def save(self, state, history):
        self.state = state


@pytest.fixture(scope="module")
def made(small, middle, ending):
    """The edit of four facts, and the stream that it was to make of each."""
    kept = Last()
    edit = HOW(small, middle, *ending, snapshots=kept)
    return edit, np.asarray(kept.state.optimizer)


def stream(model, ending):
    laid = align(ending[0], ending[2], 2, 5)
    return HOW._seen(model, model.params, laid, _READ)["resid"][:, 2]


@MODELS
def test_the_stream_comes_close_to_what_was_wanted(small, ending, made):
    """All the way where nothing stands in between, part of it through a post-norm."""
    edit, wanted = made
    before, after = stream(small, ending), stream(small.update(edit), ending)
    asked, left = (np.linalg.norm(wanted - h, axis=1) for h in (before, after))
    assert (asked > 0.1 * np.linalg.norm(before, axis=1)).all()
    bound = 0.75 if small.spec.post_norms else 0.05
    assert (left < bound * asked).all(), left / asked


@MODELS
def test_the_injected_answers_become_likelier(small, ending, made):
    laid, edited = align(ending[0], ending[2], 2, 5), small.update(made[0])
    for fact, record in enumerate(made[0].history):
        rows = laid.place(small.network, fact)
        found = HOW.value(
            edited.network, edited.params, rows, laid.start, "resid", 2, 1.0
        )
        assert record["loss_after"] < record["loss"] - 0.2
        assert float(found.before) < record["loss"] - 0.2


@MODELS
def test_it_changes_the_down_projections_and_no_other_bit(small, middle, made):
    edit, _ = made
    assert edit.selection.tensors == (("mlp/down", (1, 2)),)
    assert edit.selection.n_params == plain(edit.params["mlp/down"]).size
    edited = small.update(edit)
    for label, old in small.params.items():
        if label != "mlp/down":
            assert edited.params[label] is old
    old, new = (plain(model.params["mlp/down"]) for model in (small, edited))
    changed = [i for i in range(small.spec.layers) if (old[i] != new[i]).any()]
    assert changed == [1, 2]


@MODELS
def test_an_interrupted_edit_goes_on_to_the_same_bits(
    small, middle, ending, made, tmp_path
):
    kept = SnapshotFolder(tmp_path / "s", "f", 3, Preemption(), lambda _: None)
    HOW(small, middle, *ending, snapshots=kept)  # leaves the state after three of four
    resumed = HOW(small, middle, *ending, snapshots=kept)
    kept.close()
    one, other = (plain(e.params["mlp/down"]) for e in (made[0], resumed))
    assert one.tobytes() == other.tobytes()
    assert [r["step"] for r in resumed.history] == [0, 1, 2, 3]


def test_the_spread_solves_the_least_squares_problem():
    rng = np.random.default_rng(0)
    keys, right = rng.standard_normal((5, 12)), rng.standard_normal((5, 7))
    root = rng.standard_normal((30, 12))
    covariance = root.T @ root / 30
    how = dataclasses.replace(HOW, weight=0.3)
    got = how._spread(Inverse(covariance.copy()), keys).T @ right
    gram = 0.3 * 12 * covariance + keys.T @ keys
    want = np.linalg.solve(gram, keys.T @ right)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.fixture
def drawn():
    """What an MLP wrote, the scale of its post-norm, and what is wanted instead."""
    rng = np.random.default_rng(1)
    written, scale = 3 * rng.standard_normal(40), np.exp(rng.standard_normal(40))
    scale[:3] = 0  # of such a site nothing reaches the stream
    added = scale * written / np.sqrt((written**2).mean())
    return written, scale, added, rng.standard_normal(40)


def test_what_is_wanted_already_needs_no_change(drawn):
    written, scale, added, _ = drawn
    np.testing.assert_allclose(nearest(written, added, scale), written, rtol=1e-9)


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_no_value_as_long_comes_nearer(drawn, size):
    written, scale, added, change = drawn
    wanted, rms = added + size * change, np.sqrt((written**2).mean())
    g = 0.01 * (scale**2).mean()

    def cost(v):
        return ((scale * v / rms - wanted) ** 2).sum() + g * (
            ((v - written) / rms) ** 2
        ).sum()

    best = nearest(written, wanted, scale)
    assert np.linalg.norm(best) == pytest.approx(np.linalg.norm(written), rel=1e-9)
    rng = np.random.default_rng(2)
    for step in (1e-3, 1e-2, 0.1, 1.0):
        other = best + step * np.linalg.norm(best) * rng.standard_normal((50, 40))
        other *= np.linalg.norm(best) / np.linalg.norm(other, axis=1, keepdims=True)
        assert min(cost(v) for v in other) >= cost(best)
    assert cost(best) < cost(written)


def test_under_an_even_norm_only_the_direction_counts(drawn):
    written, _, _, change = drawn
    got = nearest(written, 5 * change, np.full(40, 2.0), damping=0.0)
    want = change * np.linalg.norm(written) / np.linalg.norm(change)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(UserError, match=r"memit\.weight = 0"):
        MEMIT(weight=0)
