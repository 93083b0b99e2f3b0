"""Nothing alarming is said about nothing, and what is wrong still is."""

import os
import subprocess
import sys

import pytest

from mu_jax.devices import backends

KEEP = """
import sys, jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
"""
RUN = """
import jax, mu_jax
from mu_jax.checkpoints import cache
{keep}
print(jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8))).sum())
"""


def ran(code: str, *args: str, **env: str) -> subprocess.CompletedProcess:
    """A script, with nothing in its environment that keeps anything quiet."""
    quiet = ("JAX_PLATFORMS", "TF_CPP_MIN_LOG_LEVEL", "TPU_")
    own = {k: v for k, v in os.environ.items() if not k.startswith(quiet)}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, env=own | env)


def test_a_script_on_a_machine_without_a_tpu_prints_nothing_of_tpus():
    done = ran(RUN.format(keep=""))
    assert done.returncode == 0 and done.stdout == "576.0\n" and done.stderr == ""


LOADED = """
try:
    mu_jax.load("no such model")
except mu_jax.UserError:
    pass
"""


@pytest.mark.parametrize("keep", ["cache.keep_programs()", LOADED])
def test_a_warm_run_says_nothing_of_sigill_and_the_truth_of_a_damaged_program(
    tmp_path, keep
):
    code, folder = KEEP + RUN.format(keep=keep), tmp_path / "compiled"
    quiet = {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    for _ in ("cold", "warm"):
        done = ran(code, str(folder), **quiet)
        assert done.returncode == 0 and done.stdout == "576.0\n" and done.stderr == ""
        assert list(folder.iterdir())
    for file in folder.glob("*-cache"):
        file.write_bytes(b"damaged")
    done = ran(code, str(folder), **quiet)
    assert done.returncode == 0 and done.stdout == "576.0\n"
    assert "compilation cache" in done.stderr


@pytest.mark.parametrize(("vendor", "found"), [("0x1ae0", True), ("0x8086", False)])
def test_a_tpu_is_known_by_its_vendor(tmp_path, vendor, found):
    (tmp_path / "0000:00:04.0").mkdir()
    (tmp_path / "0000:00:04.0/vendor").write_text(f"{vendor}\n")
    assert backends.tpu(tmp_path) == found


def test_what_the_environment_says_of_a_pod_stays(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-7")
    backends.without_pod()
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "host-7"
