"""A run's model on its devices."""

import jax.numpy as jnp
import pytest

from mu_jax.config import Config
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.run import Run
from mu_jax.run_dir import RunDir
from mu_jax.sharding import Mesh


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
