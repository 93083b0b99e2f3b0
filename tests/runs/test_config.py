"""Configs: authored in Python, kept as JSON, and nothing else built from it."""

import dataclasses
import json
from pathlib import Path

import pytest

from mu_jax import selectors, stages
from mu_jax.__main__ import main
from mu_jax.errors import UserError
from mu_jax.facts.corrupt import GaussianNoise, RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.metrics import KL, LogitDiff, Probability
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.runs.config import Config
from mu_jax.runs.loading import load, read
from mu_jax.runs.records import decode, encode
from mu_jax.selectors import (
    AllMLPs,
    Layers,
    Nonlocalized,
    PathLookup,
    Random,
    Top,
)

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "paper.py"})  # what six share
COUNTERFACT = str(FILES[0].with_name("gemma3_270m_counterfact.py"))
ALL = Config(
    "all",
    facts=CounterFact(forget=2, parts=2),
    localizers={
        "probes": Probes(),
        "attribution": AttributionPatching.paper(corruption=GaussianNoise(draws=2)),
        "tracing": CausalTracing.paper(),
        "tracing-2": CausalTracing(metric=KL(), corruption=RandomTokens(tries=7)),
        "edges": EdgeAttribution(metric=Probability()),
        "paths": PathPatching(mode="paper"),
    },
    selections={
        "flu": PathLookup(budget=0.1),
        "ct": Top("tracing", ("attn", "mlp"), "flu", "paper"),
        "random": Random("flu", 3, "paper"),
        "named": Layers(mlp=range(1, 3)),
        "all": Nonlocalized(),
    },
)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def config(request):
    return load(str(request.param))


def test_every_shipped_config_survives_json(config):
    assert isinstance(config, Config)
    assert decode(json.loads(json.dumps(encode(config)))) == config


def test_a_shipped_config_is_named_like_its_file():
    assert FILES
    for path in FILES:
        assert load(str(path)).name == path.stem


def test_a_run_directory_gives_its_config_back(config, tmp_path):
    text = json.dumps({"config": encode(config), "versions": {}})
    (tmp_path / "config.json").write_text(text)
    assert load(str(tmp_path)) == config


def test_every_kind_of_localizer_and_selector_survives_json():
    assert decode(json.loads(json.dumps(encode(ALL)))) == ALL
    kinds = [k for k in vars(selectors).values() if isinstance(k, type)]
    assert len(kinds) == 9
    for kind in kinds:
        assert decode(json.loads(json.dumps(encode(kind())))) == kind()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", 3),
        ("model", "gs://bucket/model"),
        ("facts.path", 3),
        ("facts.path", "\ud800"),
        ("facts.heldout", float("nan")),
        ("edit.steps", "6"),
        ("edit.steps", True),
        ("edit.steps", 1.5),
        ("edit.learning_rate", [1e-3]),
        ("edit.loss", None),
        ("edit.loss", {"class": "mu_jax.devices.sharding:Mesh"}),
        ("recall", encode(Probes())),
        ("localizers", []),
        ("localizers.probes", None),
        ("attack_seeds", [0, "1"]),
        ("attack_seeds", 0),
        ("attacks.relearn.how", "both"),
        ("selections.flu.scores", {}),
        ("text", {}),
        ("surplus", 1),
        ("mesh.data", 10**30),
    ],
    ids=str,
)
def test_a_setting_of_another_type_is_refused(tmp_path, path, value):
    record = encode(Config("x"))
    *parents, name = path.split(".")
    inside = record
    for parent in parents:
        inside = inside[parent]
    inside[name] = value
    (tmp_path / "config.json").write_text(json.dumps({"config": record}))
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read(tmp_path / "config.json")


def test_tuples_survive_json():
    own = Config("x", selections={"a": Layers(mlp=(1, 2), attn=(0,)), "b": AllMLPs()})
    assert decode(json.loads(json.dumps(encode(own)))) == own


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "mu_jax:load",
        "mu_jax.load:load",
        "mu_jax.runs.directory:shutil",
        "mu_jax.runs.directory:Path",
        "mu_jax.stages:subprocess.run",
        "mu_jax.nowhere:Thing",
        "mu_jax.runs.config:",
        "mu_jax.runs.config:Nothing",
        "mu_jax_evil.x:Y",
        "mu_jax../os:system",
        "",
        3,
    ],
)
def test_nothing_but_records_of_this_package_is_built(name, tmp_path):
    value = {"class": name, "args": "id"}
    with pytest.raises(ValueError):
        decode(value)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": {**encode(Config("x")), "facts": value}}))
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read(path)


def test_fields_that_a_class_does_not_have_are_refused():
    with pytest.raises(TypeError):
        decode(encode(Config("x")) | {"colour": "red"})


# ---- settings from the command line


@pytest.fixture
def given(monkeypatch, tmp_path):
    """The config that a command would run."""
    seen = []
    monkeypatch.setattr(stages, "start", lambda run, stage: seen.append(run.config))

    def run(*args: str, target=COUNTERFACT) -> Config:
        assert main(["run", target, "--runs", str(tmp_path), *args]) == 0
        return seen[-1]

    return run


def test_without_overrides_a_config_stays_as_it_is(given, config, tmp_path):
    text = json.dumps({"config": encode(config)})
    (tmp_path / "config.json").write_text(text)
    assert given(target=str(tmp_path)) == config


def test_overrides_reach_the_settings_of_localizers(given):
    found = given(
        *("--localizers.tracing.rows", "8"),
        *("--localizers.tracing.corruption.seed", "3"),
        *("--localizers.tracing.kinds", "mlp", "resid"),
        *("--localizers.tracing.metric.pooled",),
        *("--localizers.edges.steps=0",),
        *("--facts.path", "mine.jsonl"),
        *("--facts.limit", "50"),
    )
    plain = load(COUNTERFACT)
    assert found.localizers["tracing"] == dataclasses.replace(
        plain.localizers["tracing"],
        rows=8,
        corruption=RandomTokens(seed=3),
        kinds=("mlp", "resid"),
        metric=LogitDiff(pooled=True),
    )
    assert found.localizers["edges"].steps == 0
    assert found.facts == CounterFact("mine.jsonl", limit=50, forget=16)
    for name in ("paths", "attribution"):
        assert found.localizers[name] == plain.localizers[name]
    assert found.selections == plain.selections


def test_overrides_reach_the_settings_of_selections(given):
    found = given("--selections.flu.threshold", "0.05", "--selections.late.budget", "9")
    assert found.selections["flu"] == PathLookup(threshold=0.05)
    assert found.selections["late"].budget == 9
    found = given("--selections.flu.budget", "7", "--selections.late.budget", "0.5")
    assert found.selections["flu"].budget == 7
    assert found.selections["late"].budget == 0.5
    assert given("--selections.flu.budget", "None").selections["flu"].budget is None
    found = given("--selections.attribution.budget", "0.1")
    assert found.selections["attribution"].budget == 0.1


def test_every_setting_of_every_class_can_be_given(given, tmp_path):
    text = json.dumps({"config": encode(ALL)})
    (tmp_path / "config.json").write_text(text)
    found = given(
        *("--localizers.tracing-2.corruption.tries", "8"),
        *("--localizers.attribution.corruption.draws", "4"),
        *("--localizers.probes.lookup.margin", "2"),
        *("--facts.parts", "1"),
        target=str(tmp_path),
    )
    assert found.localizers["tracing-2"].corruption == RandomTokens(tries=8)
    assert found.localizers["attribution"].corruption.draws == 4
    assert found.localizers["probes"].lookup.margin == 2
    assert found.facts == CounterFact(forget=2, parts=1)
    assert found.selections == ALL.selections


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--localizers.tracing.rowz 8", "perhaps you meant --localizers.tracing.rows"),
        ("--localizers.trasing.rows 8", "perhaps you meant --localizers.tracing.rows"),
        (
            "--localizers.edges.corruption.sead 1",
            "perhaps you meant --localizers.edges.corruption.seed",
        ),
        ("--facts.pat x", "perhaps you meant --facts.path"),
        ("--selections.flu.treshold 1", "perhaps you meant --selections.flu.threshold"),
        ("--localizers.tracing.rows 0", "localizers.tracing.rows = 0; expected at"),
        ("--localizers.edges.batch -3", "localizers.edges.batch = -3; expected at"),
        ("--localizers.tracing.rows many", "many"),
        ("--localizers.tracing.mode rough", "the mode 'rough'; expected clean or"),
        ("--localizers.tracing.window 0", "a window of 0 layers; expected at least 1"),
        ("--localizers.paths.heads 0", "0 extraction heads; expected at least 1"),
        (
            "--localizers.attribution.steps -1",
            "attribution.steps -1; expected 0 or more",
        ),
        ("--localizers.edges.steps -1", "expected 0 (EAP) or more"),
        ("--localizers.edges.corruption.tries 0", "tries = 0; expected at least 1"),
        ("--localizers.edges.keep 0", "expected at least 1"),
        ("--localizers.attribution.top-neurons 0", "expected at least 1"),
        ("--selections.attribution.scores nope", "selects by the scores of 'nope'"),
        ("--selections.attribution.budget late", "the budget of 'attribution' is"),
        ("--facts.forget 0", "facts.forget = 0; expected at least 1"),
        ("--facts.parts 0", "facts.parts = 0; expected at least 1"),
        ("--facts.limit 0", "facts.limit = 0; expected at least 1"),
        ("--localizers.tracing.kinds neuron", "the kind 'neuron'; expected one of"),
        ("--localizers.tracing.kinds", "scores of no kind of site; expected"),
        ("--localizers.attribution.kinds mpl", "the kind 'mpl'; expected one of"),
    ],
)
def test_a_wrong_override_gets_one_line(given, capsys, args, said):
    with pytest.raises(AssertionError):
        given(*args.split())
    error = capsys.readouterr().err
    assert error.startswith("mu: ") and error.count("\n") == 1
    assert said in error and "---" not in error


def test_help_behind_a_config_shows_the_settings_of_its_own_classes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", COUNTERFACT, "--help"])
    assert not stop.value.code
    said = capsys.readouterr().out
    for setting in (
        "--localizers.tracing.rows INT",
        "--localizers.paths.corruption.tries INT",
        "--selections.flu.threshold FLOAT",
        "--facts.path",
        "--facts.reserved",
    ):
        assert setting in said
    assert "--localizers.probes" not in said
