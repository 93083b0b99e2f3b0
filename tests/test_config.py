"""Configs: authored in Python, kept as JSON, and nothing else built from it."""

import dataclasses
import json
from pathlib import Path

import pytest

from mu_jax.config import Config, decode, encode, load, read
from mu_jax.errors import UserError
from mu_jax.selectors import AllMLPs, Layers

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


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
        "mu_jax.run_dir:shutil",
        "mu_jax.run_dir:Path",
        "mu_jax.stages:subprocess.run",
        "mu_jax.nowhere:Thing",
        "mu_jax.config:",
        "mu_jax.config:Nothing",
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


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x y"])
def test_names_that_are_no_folder_are_refused(name):
    for make in (
        lambda: Config(name),
        lambda: Config("x", selections={name: AllMLPs()}),
    ):
        with pytest.raises(UserError, match="name of a folder"):
            make()


def test_the_unedited_models_name_is_taken():
    with pytest.raises(UserError, match="'unedited'"):
        Config("x", selections={"unedited": AllMLPs()})


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("edit", "steps"),
        ("edit", "forget_batch"),
        ("known", "batch"),
        ("recall", "limit"),
        ("attribution", "rows"),
        ("probes", "max_subjects"),
        ("text", "length"),
    ],
)
def test_counts_below_one_are_refused(part, field):
    own = Config("x")
    with pytest.raises(
        UserError, match=rf"{part}\.{field} = 0; expected at least [12]"
    ):
        changed = dataclasses.replace(getattr(own, part), **{field: 0})
        dataclasses.replace(own, **{part: changed})
