"""Sharded = unsharded: the same scores, selections and edits on 1, 2, 4 and 8 devices.

The devices are simulated, in a process of their own (`sharded_run.py`), since their
number is fixed when jax starts.
"""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import rounding
from jax.experimental import topologies
from sharded_run import SPEC

import mu_jax as mu
from mu_jax.devices.sharding import Mesh
from mu_jax.errors import UserError
from mu_jax.plan.chips import prepare

UNEVEN = "3x2x1"
"""Its devices divide no batch here: 16 rows of an edit, 8 of text, 4 of tracing."""
MESHES = ("1x2x1", "1x2x2", "2x1x4", UNEVEN)
"""data x fsdp x tensor. 2 head groups do not divide by 4; the query heads do."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{mesh: everything measured on it}, `1x1x1` the one without a layout."""
    folder = tmp_path_factory.mktemp("sharded")
    flags = "--xla_force_host_platform_device_count=8"
    script = Path(__file__).parents[1] / "sharded_run.py"
    subprocess.run(
        [sys.executable, str(script), str(folder), *MESHES],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("mesh", ("1x1x1", *MESHES))
@pytest.mark.parametrize("what", ["attribution", "tracing", "answers", "losses"])
def test_a_mesh_changes_no_number(found, mesh, what):
    """But by rounding, which a way through the network and back adds twice."""
    exact, made = found["exact"][what], found[mesh][what]
    assert np.abs(exact).max() > 0
    bound = 2 * rounding.network(SPEC, np.abs(exact).max())
    np.testing.assert_allclose(made, exact, rtol=0, atol=bound)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_changes_no_edited_weight(found, mesh):
    one, many = (found[m]["edit mlp/down"] for m in ("1x1x1", mesh))
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_turns_no_step_aside(found, mesh):
    """What the edit changed, also where that is small beside the weights.

    Adam takes the sign of the smallest gradients from their rounding: of single
    entries this can't be asked.
    """
    one, many = found["1x1x1"]["change mlp/down"], found[mesh]["change mlp/down"]
    assert np.linalg.norm(many - one) < 1e-3 * np.linalg.norm(one)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_changes_no_selection(found, mesh):
    np.testing.assert_array_equal(found[mesh]["selected"], found["1x1x1"]["selected"])


@pytest.mark.parametrize("mesh", MESHES)
def test_every_device_holds_its_part(found, mesh):
    """Of the frozen weights, the masters and the optimiser's moments."""
    _, fsdp, tensor = map(int, mesh.split("x"))
    shares = found[mesh]["shares"]  # largest device's bytes over all bytes
    assert len(shares) == 3
    # Whole on every device: norms, and keys where their heads do not divide.
    assert np.all(shares >= 1 / (fsdp * tensor))
    assert np.all(shares < 1.5 / (fsdp * tensor))


def test_what_fills_a_step_is_known(tiny):
    """16 + 24 rows of an edit on 16 devices: 8 more, and 14 to 2 of text."""
    layout = Mesh(1, 16, 1).layout(slice_of("v5e:4x4"))
    network = dataclasses.replace(tiny.network, layout=layout)
    assert mu.GradientEdit().fillers(network) == 8 + 14
    assert mu.GradientEdit(accumulate=2).fillers(network) == 2 * (12 + 0)
    assert mu.GradientEdit().fillers(tiny.network) == 0


def test_no_device_computes_the_rows_of_others(found):
    """16 rows on six devices are three rows each, as 18 are; not all 16, nor 8."""
    sixteen, eighteen = found[UNEVEN]["work"]
    assert sixteen < 1.05 * eighteen
    assert eighteen < 0.25 * found["1x1x1"]["work"][1]


def slice_of(name: str, **how):
    """The devices of a topology, as the TPU's compiler knows them."""
    prepare()
    found = topologies.get_topology_desc(platform="tpu", topology_name=name, **how)
    return list(found.devices)


def links(a, b) -> int:
    """From one chip to another, on a grid that is not closed."""
    return sum(abs(x - y) for x, y in zip(a.coords, b.coords, strict=True))


def test_a_ring_of_chips_is_a_ring_on_the_machine():
    ring = Mesh(1, 16, 1).layout(slice_of("v5e:4x4")).mesh.devices.ravel()
    assert {links(ring[i - 1], ring[i]) for i in range(16)} == {1}


def test_neighbours_of_a_mesh_are_neighbours_on_the_machine():
    grid = Mesh(1, 4, 4).layout(slice_of("v5e:4x4")).mesh.devices[0]
    for line in (*grid, *grid.T):
        assert [links(a, b) for a, b in itertools.pairwise(line)] == [1, 1, 1]


def test_several_slices_share_the_rows():
    """What lies between them is slow: along it weights are not gathered."""
    two = slice_of("v5e:2x2", num_slices=2)
    for sizes in ((2, 4, 1), (2, 2, 2), (8, 1, 1)):
        halves = np.split(Mesh(*sizes).layout(two).mesh.devices, 2)
        assert [{d.slice_index for d in half.flat} for half in halves] == [{0}, {1}]


def test_rules_leave_whole_what_does_not_divide():
    layout = Mesh(1, 1, 1).layout(jax.devices()[:1])
    shape = {"layer": 3, "embedding": 32, "neurons": 48}
    assert layout.weights(shape).is_fully_replicated


@pytest.mark.parametrize(
    ("mesh", "message"),
    [((2, 3, 1), "mesh data 2 x fsdp 3 x tensor 1 on 1 dev"), ((-1, 2, 1), "on 1 dev")],
)
def test_a_mesh_of_other_devices_is_refused(mesh, message):
    with pytest.raises(UserError, match=message):
        Mesh(*mesh).layout(jax.devices()[:1])


@pytest.mark.parametrize("sizes", [(-1, -1, 1), (0, 1, 1), (1, -2, 1)])
def test_a_mesh_of_no_size_is_refused(sizes):
    with pytest.raises(UserError, match="sizes from 1"):
        Mesh(*sizes)
