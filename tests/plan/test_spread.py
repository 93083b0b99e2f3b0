"""What a mesh computes beyond the rows asked for is in the plan."""

from types import SimpleNamespace

import pytest

import mu_jax as mu
from mu_jax.devices.sharding import Mesh
from mu_jax.model.params import sizes
from mu_jax.plan import costs
from mu_jax.plan.chips import CHIPS, topology
from mu_jax.plan.costs import Spread, Work
from mu_jax.plan.lengths import Lengths
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_spec

SPEC = tiny_spec()
LENGTH = Lengths(rows=8, width=32, prefix=4, options=2)
ROWS = Lengths(rows=8, width=32, prefix=0, options=2)


@pytest.fixture(scope="module")
def spread():
    """Sixteen chips along fsdp."""
    return Spread(Mesh(1, 16, 1).layout(topology("v5e:4x4").devices))


def test_rows_that_fill_a_batch_are_counted(spread):
    """Of 40 rows on 16 chips each computes 3."""
    filled = costs.forward(SPEC, 40, ROWS, 0, spread).flops
    assert filled == costs.forward(SPEC, 48, ROWS, 0).flops
    assert costs.forward(SPEC, 48, ROWS, 0, spread).flops == filled
    assert costs.reading(SPEC, 2, 8, spread).flops < costs.reading(SPEC, 16, 8).flops


def test_a_shared_prefix_is_counted_on_every_chip_with_rows(spread):
    here, there = (
        costs.forward(SPEC, 48, LENGTH, 0, s).flops for s in (Spread(), spread)
    )
    assert there - here == pytest.approx(15 * costs.layers(SPEC, 4, 4))


def test_a_step_counts_what_fills_its_parts(spread):
    selection = Layers(mlp=(1, 2))(None, sizes(SPEC))
    step = lambda *rows, spread: costs.step(
        SPEC,
        mu.GradientEdit(
            forget_batch=rows[0], retain_batch=rows[1], text_batch=rows[2], accumulate=2
        ),
        selection,
        ROWS,
        1,
        spread,
    )
    few = step(16, 24, 2, spread=spread)  # 20 rows a part on 16 chips, and one of text
    assert few.flops > step(16, 24, 2, spread=Spread()).flops
    assert few.flops < step(32, 32, 32, spread=Spread()).flops


def test_float32_products_cost_six():
    mesh = SimpleNamespace(shape={"data": 1, "fsdp": 1, "tensor": 1})
    time = lambda width, how: costs.seconds(
        Work(197e12, 1.0), SPEC, width, mesh, CHIPS["v5e"], how
    )["compute"]
    assert [time(4, how) for how in ("default", "high", "highest")] == [1, 3, 6]
    assert time(2, "highest") == 1
