"""A run's model on its devices."""

import os
import shutil

import jax.numpy as jnp
import pytest

from mu_jax.console import Console
from mu_jax.devices.sharding import Mesh
from mu_jax.errors import UserError
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.run import Run
from mu_jax.types import Facts


def run(tmp_path, **settings) -> Run:
    return Run(Config("x", model="tiny", **settings), RunDir(tmp_path), Console())


def test_a_model_is_read_in_the_precision_asked_for(tmp_path, tiny):
    half = run(tmp_path, dtype="bfloat16").model
    assert half.params.keys() == tiny.params.keys()
    for label, array in half.params.items():
        assert array.named_shape == tiny.params[label].named_shape
        dtype = jnp.float32 if label.endswith("norm") else jnp.bfloat16
        assert array.unwrap(*array.named_shape).dtype == dtype
    assert run(tmp_path).model.params["embedder"].dtype == jnp.float32


def test_precision_changes_what_is_up_to_date_and_the_mesh_does_not(tmp_path):
    prints = {
        run(tmp_path, **settings).fingerprint("evals/flu")
        for settings in ({}, {"mesh": Mesh(1, 2, 4)}, {"save_every": 1})
    }
    assert len(prints) == 1
    assert run(tmp_path, dtype="bfloat16").fingerprint("evals/flu") not in prints


@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"save_every": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Config("x", **settings)


def test_a_mesh_of_more_devices_than_there_are_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--mesh\.data"):
        _ = run(tmp_path, mesh=Mesh(data=64)).model


@pytest.fixture
def weights(tmp_path):
    """What might be a checkpoint: it is not loaded."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1 << 20))
    return folder


def evaluated(tmp_path, weights) -> str:
    """The fingerprint of an evaluation by a command of its own."""
    made = Run(Config("x", model=str(weights)), RunDir(tmp_path / "run"), Console())
    return made.fingerprint("evals/flu")


def test_other_weights_under_the_same_path_make_all_stale(tmp_path, weights):
    before = evaluated(tmp_path, weights)
    file = weights / "model.safetensors"
    os.utime(file, (1, 1))
    assert evaluated(tmp_path, weights) == before  # a copy is the same model
    with file.open("r+b") as data:
        data.seek(700_000)
        data.write(b"x")
    assert evaluated(tmp_path, weights) != before


def test_a_run_goes_on_where_its_model_is_not(tmp_path, weights):
    made = Run(Config("x", model=str(weights)), RunDir(tmp_path / "run"), Console())
    made.dir.write_facts(Facts(()))
    made.dir.write_asked([])
    made.stamp("facts")
    shutil.rmtree(weights)
    again = Run(made.config, made.dir, Console())
    assert again.fresh("facts")
    (made.dir.path / "asked.jsonl").unlink()
    assert not again.fresh("facts")
    made.dir.write_asked([])
    made.stamp("facts")
    assert again.fresh("facts")
    (weights.parent / "model").mkdir()
    (weights / "model.safetensors").write_bytes(b"another")
    assert not Run(made.config, made.dir, Console()).fresh("facts")


def test_another_version_of_the_library_makes_all_stale(tmp_path, weights):
    before = evaluated(tmp_path, weights)
    made = Run(Config("x", model=str(weights)), RunDir(tmp_path / "run"), Console())
    made.__dict__["versions"] = {**made.versions, "mu_jax": "99"}
    assert made.fingerprint("evals/flu") != before
