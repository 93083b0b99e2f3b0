"""Which rows a step sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.edits.batches import draw

ROWS, SIZES = st.integers(1, 40), st.integers(1, 20)
STEPS, SEEDS = st.integers(0, 200), st.integers(0, 2**31)


@given(ROWS, SIZES, STEPS, SEEDS)
def test_draw_is_a_pure_function_of_step_and_seed(total, size, step, seed):
    one = draw(total, size, step, seed)
    draw(total, size, step + 1, seed)
    np.random.seed(1)
    assert np.array_equal(one, draw(total, size, step, seed))
    assert one.shape == (size,)
    assert ((one >= 0) & (one < total)).all()


@given(ROWS, SIZES, SEEDS, st.integers(0, 3))
def test_every_pass_covers_all_rows_once(total, size, seed, which):
    stop = total * (which + 1)
    drawn = [draw(total, size, step, seed) for step in range(-(-stop // size))]
    one = np.concatenate(drawn)[total * which : stop]
    assert sorted(one) == list(range(total))


@pytest.mark.parametrize("other", [{"step": 1}, {"seed": 1}])
def test_steps_and_seeds_draw_differently(other):
    first = {"total": 100, "size": 20, "step": 0, "seed": 0}
    assert draw(**first).tolist() != draw(**{**first, **other}).tolist()
