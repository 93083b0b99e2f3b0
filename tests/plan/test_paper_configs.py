"""The paper's six runs, at their full size, by the real TPU compiler."""

import itertools
from pathlib import Path

import pytest

from mu_jax.plan.chips import GIB, topology
from mu_jax.plan.plan import plan
from mu_jax.plan.programs import programs, selections, spec_of
from mu_jax.runs.loading import load

FOLDER = Path(__file__).parents[2] / "configs"
MODELS = ("gemma_7b", "gemma2_9b", "llama3_8b")
NAMES = [f"{m}_{t}" for m, t in itertools.product(MODELS, ("sports", "counterfact"))]
FLU = {  # parameters, in the paper's table
    "gemma_7b_sports": 1_358_954_496,
    "gemma2_9b_sports": 770_703_360,
    "llama3_8b_sports": 704_643_072,
}
ALL = {"gemma_7b": 7.75e9, "gemma2_9b": 8.32e9, "llama3_8b": 6.98e9}


def of(name: str):
    return load(str(FOLDER / f"{name}.py"))


@pytest.fixture(params=NAMES)
def config(request):
    return of(request.param)


def test_the_selections_have_the_papers_sizes(config):
    found = selections(config, spec_of(config.model))
    model = config.name.rpartition("_")[0]
    assert found["nonlocalized"].n_params == pytest.approx(ALL[model], rel=2e-3)
    if config.name in FLU:
        assert found["flu"].n_params == FLU[config.name]
    for name, selection in found.items():
        if name not in ("all_mlps", "nonlocalized"):
            assert selection.n_params <= found["flu"].n_params


def test_the_batch_is_the_papers(config):
    for name in config.selections:
        edit = config.edit_of(name)
        assert (edit.steps, edit.clip) == (50, 1.0)
        assert edit.forget_batch == edit.retain_batch == edit.text_batch == 64
    assert config.text.length == 100
    assert config.edit_of("ct_mlps") == config.edit_of("flu")
    assert config.edit_of("all_mlps").learning_rate <= config.edit.learning_rate * 2


# A model's two configs have the same programs but for the selections: one compiles
# the forward pass, the other the edit; of Llama, whose edit leaves most room, none.


@pytest.mark.parametrize("model", MODELS)
def test_a_page_of_patched_runs_fits_eight_small_chips(model):
    only = "localize paths"
    (stage,) = plan(of(f"{model}_counterfact"), topology("v5e:2x4"), only).stages
    assert stage.fits and stage.name == only
    assert stage.collectives["all-gather"] > 0


def test_what_every_edit_holds_fits_sixteen_small_chips(config):
    """Weights, masters and moments, by arithmetic: the rest is for the compiler."""
    where = topology("v5e:4x4")
    for program in programs(config, where):
        assert sum(program.holds.values()) < where.chip.hbm, program.name


@pytest.mark.parametrize("model", MODELS[:2])
def test_the_fact_lookup_edit_fits_four_small_chips_with_room(model):
    config = of(f"{model}_sports")
    (stage,) = plan(config, topology("v5e:2x2"), "edit flu").stages
    assert stage.fits and stage.peak_bytes < 13 * GIB
    assert stage.collectives["all-gather"] > stage.collectives["all-reduce"]
