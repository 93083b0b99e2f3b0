"""`scripts/tpu_pod.sh`: what it would run on the workers of a slice."""

import os
import shlex
import subprocess
from pathlib import Path

import yaml

SCRIPTS = Path(__file__).parents[1] / "scripts"


def pod(*args: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(SCRIPTS / "tpu_pod.sh"), *args],
        env={**os.environ, "DRY_RUN": "1", **env},
        capture_output=True,
        text=True,
    )


def test_every_worker_is_set_up_and_runs_the_same_line():
    command = ["run", "configs/tiny.py", "--name", "it's a $(test)"]
    done = pod("slice", "a-zone", "--", *command, RUNS="/mnt/a disk")
    assert done.returncode == 0 and done.stderr == ""
    copied, setup, run = map(shlex.split, done.stdout.splitlines())
    tpu = ["gcloud", "compute", "tpus", "tpu-vm"]
    where = ["--zone", "a-zone", "--worker=all"]
    assert copied[:5] == [*tpu, "scp"] and copied[6:] == ["slice:mu_jax.tar.gz", *where]
    assert setup[:-1] == run[:-1] == [*tpu, "ssh", "slice", *where, "--command"]
    assert "scripts/setup.sh" in setup[-1]
    _, _, *there = shlex.split(run[-1])
    said = ["&&", "exec", ".venv/bin/mu", *command, "--distributed"]
    assert there == [*said, "--runs", "/mnt/a disk"]
    assert not Path(copied[5]).exists()


def test_a_wrong_call_says_how_it_is_meant():
    for args in ((), ("slice", "zone", "run", "configs/tiny.py"), ("slice", "--", "x")):
        done = pod(*args)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("usage: ") and "NAME ZONE --" in done.stderr


def test_the_manifest_runs_one_command_on_as_many_hosts_as_it_starts():
    manifest = yaml.safe_load((SCRIPTS / "gke_jobset.yaml").read_text())
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod_spec = spec["template"]["spec"]
    (container,) = pod_spec["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    topology = pod_spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    x, y = map(int, topology.split("x"))
    assert spec["parallelism"] * chips == spec["completions"] * chips == x * y
    assert "--distributed" in container["command"]
    (mount,) = container["volumeMounts"]
    runs = [a for a in container["command"] if a.startswith("--runs=")]
    assert runs[0].partition("=")[2].startswith(mount["mountPath"])
