"""What rounding leaves of an edit."""

import dataclasses

import made_checkpoints as made
import ml_dtypes
import numpy as np
import pytest

from mu_jax.checkpoints import rounding
from mu_jax.checkpoints.delta import Change
from mu_jax.checkpoints.huggingface import directory as huggingface_dir
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.source import place
from mu_jax.errors import UserError

BF16, ONE = np.dtype(ml_dtypes.bfloat16), ("mlp/up", 0)
STEP = 2.0**-7
"""Between 1 and the next number of bfloat16."""


def left(old, move, dtype=BF16):
    old = np.asarray(old)
    new = old.astype(np.float32) + np.asarray(move, np.float32)
    return rounding.left({ONE: Change(old, new)}, {ONE: dtype})


def ones(n):
    return np.ones(n, np.float32)


@pytest.mark.parametrize(
    ("move", "norm", "moved"),
    [
        ([STEP, -STEP, 2 * STEP], 1, 1),
        ([0.375 * STEP, 0.125 * STEP, 0.0], 0, 0),
        ([0.625 * STEP], 1 / 0.625, 1),
        ([STEP, -0.25 * STEP], 1 / 1.0625, 1 / 2),
        ([0.0, 0.0], 1, 1),
    ],
)
def test_moves_of_less_than_half_a_step_are_lost(move, norm, moved):
    found = left(ones(len(move)), move)
    assert found == (norm, moved)
    assert left(ones(len(move)), move, np.dtype(np.float32)) == (1, 1)


def test_between_the_numbers_of_a_format_rounding_leaves_a_small_edit_on_average():
    """As where a float32 base is cast: each weight's own rounding is then drawn."""
    rng = np.random.default_rng(0)
    old = 1.25 + rng.uniform(-0.2, 0.2, 200_000).astype(np.float32)
    found = left(old, np.full(old.shape, 0.05 * STEP))
    assert abs(found.norm - 1) < 0.05 and abs(found.moved - 0.05) < 0.005


def test_what_the_model_rounds_itself_is_not_counted():
    """A model in bfloat16 was measured so."""
    old = ones(2).astype(BF16)
    assert left(old, [0.4 * STEP, STEP]) == (1, 1)


def test_the_tensors_count_together():
    moves = {("mlp/up", 0): STEP, ("mlp/down", 1): 0.25 * STEP}
    changes = {k: Change(ones(1), ones(1) + np.float32(m)) for k, m in moves.items()}
    found = rounding.left(changes, dict.fromkeys(changes, BF16))
    assert found == (1 / 1.0625, 0.5)
    mixed = dict(zip(changes, (BF16, np.dtype(np.float32)), strict=True))
    assert rounding.left(changes, mixed) == (1, 1)


@pytest.mark.parametrize("kind", ["gemma3", "llama3"])
def test_a_model_is_rounded_as_it_is_when_written_and_read_again(tmp_path, kind):
    model = made.model(kind)
    found = made.plain(rounding.rounded(model, "bfloat16").params)
    huggingface_dir.write(tmp_path, model, "bfloat16")
    for label, value in made.plain(place(open_folder(tmp_path))).items():
        assert value.tobytes() == found[label].tobytes(), label
        assert value.tobytes() != np.asarray(made.plain(model.params)[label]).tobytes()
    model = dataclasses.replace(model, params=place(open_folder(tmp_path)))
    for label, value in made.plain(rounding.rounded(model, "bfloat16").params).items():
        assert value.tobytes() == found[label].tobytes(), label


def test_less_than_enough_is_refused():
    rounding.check(rounding.Left(0.9, 0.1), "flu in bfloat16")
    message = (
        r"flu in bfloat16: rounding leaves 89\.9% of its norm and 10\.0% of its mov"
    )
    with pytest.raises(UserError, match=message):
        rounding.check(rounding.Left(0.899, 0.1), "flu in bfloat16")
