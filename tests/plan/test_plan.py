"""The plan of a tiny model, by the real TPU compiler."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from mu_jax.__main__ import main
from mu_jax.commands import plan as command
from mu_jax.commands.words import overridden
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import GaussianNoise
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.metrics import KL
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.plan.chips import CHIPS, topology
from mu_jax.plan.costs import Work
from mu_jax.plan.plan import EFFORT, plan, wanted
from mu_jax.plan.programs import Program, programs, spec_of
from mu_jax.plan.search import smallest
from mu_jax.runs.loading import load

TINY = "configs/tiny.py"
BIG = "configs/gemma2_9b_sports.py"


@pytest.fixture(scope="module")
def config():
    return load(TINY)


@pytest.fixture(scope="module")
def planned(config):
    return plan(config, topology("v5e:2x2"))


def test_every_stage_of_a_run_is_planned(config, planned):
    names = [stage.name for stage in planned.stages]
    assert names == [
        "facts",
        *(f"localize {name}" for name in config.localizers),
        *(f"edit {name}" for name in config.selections),
        "evaluate",
        "evaluate text",
    ]
    assert planned.fits


def test_memory_adds_up_to_the_peak(planned):
    for stage in planned.stages:
        assert sum(stage.memory.values()) == stage.peak_bytes
        assert 0 < stage.peak_bytes <= stage.hbm_bytes == CHIPS["v5e"].hbm
        assert stage.flops > 0 and stage.seconds > 0 and stage.calls >= 1


def test_what_a_program_holds_is_what_the_compiler_counts(config):
    spread = overridden(config, ["--mesh.fsdp", "4"], "mu")
    where = topology("v5e:2x2")
    program = next(p for p in programs(spread, where) if p.name == "facts")
    compiled = program.lower().compile({"optimization_level": EFFORT})
    counted = compiled.memory_analysis().argument_size_in_bytes
    assert sum(program.holds.values()) <= counted  # the smallest arrays are padded
    whole = next(p for p in programs(config, where) if p.name == "facts")
    assert program.holds["weights"] < 0.3 * whole.holds["weights"]


LOCALIZERS = {
    "paths": PathPatching(rows=4),
    "edges": EdgeAttribution(rows=4, batch=2),
    "tracing": CausalTracing.paper(rows=4),
    "noise": CausalTracing(metric=KL(), corruption=GaussianNoise(), rows=4),
    "attribution": AttributionPatching.paper(rows=4, batch=2),
    "apart": AttributionPatching(("mlp",), steps=2, together=False, rows=4),
}


def test_every_localizer_has_a_program_that_lowers(config):
    every = dataclasses.replace(config, localizers=LOCALIZERS, selections={})
    found = {p.name: p for p in programs(every, topology("v5e:2x2"))}
    for name in LOCALIZERS:
        program = found[f"localize {name}"]
        assert program.lower().as_text()
        assert program.calls >= 1 and program.work.flops > 0


def test_json_holds_the_promised_fields(capsys):
    args = ["plan", TINY, "--topology", "v5e:2x2", "--only", "evaluate", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is True and found["topology"] == "v5e:2x2"
    assert [stage["name"] for stage in found["stages"]] == ["evaluate", "evaluate text"]
    kinds = {
        "name": str,
        "fits": bool,
        "peak_bytes": int,
        "hbm_bytes": int,
        "flops": float,
        "collectives": dict,
        "chip_hours": float,
    }
    for stage in found["stages"]:
        for field, kind in kinds.items():
            assert isinstance(stage[field], kind), field


def test_what_does_not_fit_is_said_with_a_remedy(capsys):
    args = ["plan", BIG, "--topology", "v5e:1", "--only", "edit nonlocalized"]
    assert main([*args, "--edit.no-remat"]) == 1
    said = capsys.readouterr().out
    assert "edit nonlocalized: DOES NOT FIT" in said
    assert "remedy: --edit.remat; --edit.accumulate 8; more chips" in said
    peak = float(said.split("DOES NOT FIT, ")[1].split()[0])
    weights, trained = 2 * 9.24e9, 3 * 4 * 8.32e9
    assert peak >= (weights + trained) / 2**30


@pytest.mark.parametrize("gib", [5, 17])
def test_what_the_compiler_refuses_is_counted(config, monkeypatch, gib):
    """What goes in fits, what comes out does not: several arrays, or a single one."""
    where = topology("v5e:1")
    place = jax.sharding.SingleDeviceSharding(where.devices[0])
    x = jax.ShapeDtypeStruct((1 << 20,), jnp.int8, sharding=place)
    make = jax.jit(lambda x: [jnp.tile(x, 1024 * gib) + i for i in range(4)])
    program = Program("big", lambda: make.lower(x), 1, Work(1.0, 1), "", {"x": 1 << 20})
    monkeypatch.setattr("mu_jax.plan.plan.programs", lambda *_: [program])
    (stage,) = plan(config, where).stages
    assert not stage.fits and stage.collectives == {}
    assert stage.peak_bytes > stage.hbm_bytes == where.chip.hbm


@pytest.mark.parametrize(
    ("said", "gib"),
    [
        ("Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm. Exce", 20),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries"
            " (1.50T) exceeds available HBM (15.75G). HLO module: jit_f.",
            1536,
        ),
        ("Allocation (size=17179869184) would exceed memory (size=171798691", 16 + 3),
        ("Ran out of memory in words that nobody knows yet", 3),
    ],
)
def test_each_complaint_of_the_compiler_is_understood(said, gib):
    assert wanted(f"RESOURCE_EXHAUSTED: {said}", held=3 << 30) == gib << 30


def test_what_is_refused_in_unknown_words_takes_all_there_is(config, monkeypatch):
    where = topology("v5e:1")

    def refuse():
        raise RuntimeError("RESOURCE_EXHAUSTED: in words that nobody knows yet")

    program = Program("big", refuse, 1, Work(1.0, 1), "", {"x": 1 << 20})
    monkeypatch.setattr("mu_jax.plan.plan.programs", lambda *_: [program])
    (stage,) = plan(config, where).stages
    assert not stage.fits and stage.peak_bytes == where.chip.hbm


def test_the_search_names_settings_that_fit(config, capsys, monkeypatch):
    found = smallest(config, ("v5e",), "edit early")
    assert found.topology.name == "v5e:1" and found.fits
    monkeypatch.setattr("mu_jax.commands.plan.smallest", lambda *_: found)
    assert (
        main(["plan", TINY, "--search", "--topology", "v5e", "--only", "edit early"])
        == 0
    )
    said = capsys.readouterr().out
    words = said.partition("add ")[2].split()
    again = overridden(config, words, "mu")
    assert math.prod((again.mesh.data, again.mesh.fsdp, again.mesh.tensor)) == 1
    assert again.edit == found.config.edit


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--topology", "v9z:4x4"], "v5e"),
        (["--topology", "v5e:3x5"], "shape"),
        (["--topology", "v5e:2x2x9"], "expected one of 1, 2x2"),
        (["--topology", "v5p:4x4"], "expected one such as 1, 2x2x1"),
        (["--topology", "v5p:3x3x3"], "not divisible"),
        (["--topology", "v4:32x32x32"], "'v4:32x32x32'"),
        (["--topology"], "value"),
        ([], "--topology"),
        (["--topology", "v5e:2x2", "--only", "nonsense"], "facts"),
        (["--topology", "v5e:2x2", "--mesh.fsdp", "3"], "mesh"),
    ],
)
def test_bad_input_is_one_clear_line(args, said, capsys):
    assert main(["plan", TINY, *args]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and err.count("\n") == 0


def test_options_of_the_plan_are_told_from_overrides():
    own, rest = command.options(["--only=edit flu", "--edit.steps", "3", "--json"])
    assert own == {"--only": "edit flu", "--json": "yes"}
    assert rest == ["--edit.steps", "3"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("google/gemma-7b", "gemma-7b"),
        ("google/gemma-2-9b", "gemma2-9b"),
        ("google/gemma-3-270m", "gemma3-270m"),
        ("meta-llama/Meta-Llama-3-8B", "llama3-8b"),
        ("meta-llama/Llama-3.1-8B", "llama3.1-8b"),
        ("gemma3-270m", "gemma3-270m"),
    ],
)
def test_hub_ids_stand_for_specs(model, name):
    assert spec_of(model).name == name


def test_a_misspelt_model_is_refused():
    with pytest.raises(UserError, match="perhaps you meant"):
        spec_of("google/gemma-2-9c")
