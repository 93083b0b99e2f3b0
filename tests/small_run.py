"""A run small enough to be started again and again, in processes of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from limits import HANGS

from mu_jax.checkpoints import edits
from mu_jax.runs.directory import RunDir
from mu_jax.testing import tiny_spec

ROOT = Path(__file__).parents[1]
CITIES = ("Paris", "Rome", "Berlin")
CONFIG = """
from pathlib import Path
from mu_jax.runs.config import Config
from mu_jax.edits.gradient import GradientEdit
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.recall import Recall
from mu_jax.evals.text_loss import TextLoss
from mu_jax.facts.corrupt import RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.selectors import Top

NOISE = RandomTokens()


def get_config() -> Config:
    return Config(
        name="small",
        model="tiny",
        facts=CounterFact(str(Path(__file__).with_name("facts.jsonl")), forget=8),
        known=KnownFilter(threshold=0.0, batch=24),
        localizers={
            "attribution": AttributionPatching(
                kinds=("attn", "mlp"), corruption=NOISE, rows=8, batch=8
            ),
            "tracing": CausalTracing(
                kinds=("mlp",), corruption=NOISE, by_role=False, example=-1, rows=4
            ),
        },
        selections={"top": Top(budget=9216)},
        edit=GradientEdit(steps=6, learning_rate=1e-3, forget_batch=8, retain_batch=8),
        recall=Recall(batch=24, limit=24),
        text_loss=TextLoss(limit=8),
        lens=None,
        depth=None,
        samples=None,
        save_every=2,
    )
"""


def write(folder: Path) -> Path:
    """The config file of the run.

    Three cities leave no distractors, so that one format is asked and little compiles.
    """
    records = []
    for i in range(24):
        rewrite = {
            "prompt": "{} lies in the city of",
            "relation_id": "P131",
            "subject": f"Tower{i} House{i}",
            "target_true": {"str": CITIES[i % 3]},
            "target_new": {"str": CITIES[(i + 1) % 3]},
        }
        records.append({"case_id": i, "requested_rewrite": rewrite})
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "facts.jsonl").write_text(lines)
    path = folder / "small.py"
    path.write_text(CONFIG)
    return path


def start(
    args: list[str], cache: Path, devices: int = 1, script: str = ""
) -> subprocess.Popen:
    """`mu ARGS` in a process with so many devices; `script` runs before it there."""
    main = "import sys; from mu_jax.__main__ import main; sys.exit(main())"
    flags = f"--xla_force_host_platform_device_count={devices}"
    own = {"XLA_FLAGS": flags, "MU_JAX_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", f"{script}\n{main}", *args],
        env={**os.environ, **own},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def together(
    args: list[str],
    cache: Path,
    processes: int,
    devices: int,
    scripts: Sequence[str] = (),
    each: Sequence[list[str]] = (),
) -> list[subprocess.Popen]:
    """`mu ARGS` as several processes on loopback, each with more of its own."""
    several = ["--coordinator", f"127.0.0.1:{port()}", "--processes", str(processes)]
    return [
        start(
            [*args, *own, *several, "--process", str(i)], cache, devices, script=script
        )
        for i, own, script in zip(
            range(processes),
            each or [[]] * processes,
            scripts or [""] * processes,
            strict=True,
        )
    ]


def port() -> int:
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ended(process: subprocess.Popen, status: int = 0) -> str:
    """What a process said, once it has ended with this status."""
    try:
        said = process.communicate(timeout=HANGS)[1]
    finally:
        process.kill()
    assert process.returncode == status, said[-3000:]
    return said


def unfinished(
    small: tuple[Path, Path], folder: Path, *artefacts: str
) -> tuple[Path, Path]:
    """A copy of the run without its edits, and its cache; artefacts are to be made."""
    run = folder / "small"
    shutil.copytree(small[1], run)
    for artefact in artefacts:
        (run / "stamps" / artefact).unlink()
    shutil.rmtree(run / "edits")
    return run, small[0].parent / "cache"


def weights(run: Path) -> dict[str, bytes]:
    """The bits of an edit's tensors."""
    return {label: array.tobytes() for label, array in arrays(run).items()}


def arrays(run: Path) -> dict[str, np.ndarray]:
    """An edit's tensors."""
    selection = RunDir(run).read_selection("top")
    params = edits.restore(run / "edits/top/params", selection, tiny_spec())
    return {k: np.asarray(a.unwrap(*a.named_shape)) for k, a in params.items()}


def history(run: Path) -> list[dict]:
    """The steps of an edit, without what the clock said."""
    lines = (run / "edits/top/history.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(len(records)))
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
