"""Weight distance: exactly what an edit moved, and nothing else."""

import numpy as np
import pytest

from mu_jax.evals.distance import WeightDistance
from mu_jax.selectors import Layers
from mu_jax.types import Edit, Scores


def test_a_tensor_scaled_by_a_tenth_is_a_tenth_away(tiny):
    selection = Layers(mlp=(1, 4))(Scores("", {}), tiny.sizes)
    old = tiny.selected(selection)
    new = {label: a * 1.1 if "down" in label else a for label, a in old.items()}
    (row,) = WeightDistance()(tiny.update(Edit(selection, new, [])), "mine", tiny)
    assert (row.prompt, row.at, row.n) == ("mlp/down", "layers=1,4", 2)
    np.testing.assert_allclose(row.values, 0.1, rtol=1e-4)
    assert row.mean == pytest.approx(0.1, rel=1e-4)
    assert WeightDistance()(tiny, "same", tiny) == []
