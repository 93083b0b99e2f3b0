"""A run for each of several values of one setting: seeds, budgets, numbers of facts.

Each value has a run directory of its own, `RUNS/NAME.SETTING-VALUE`, which can be taken
up, attacked and compared like any other; facts, scores and selections that the value
does not touch are made once and copied.
"""

import dataclasses
import hashlib
import re
from typing import NamedTuple

from mu_jax import compare, stages
from mu_jax.errors import UserError
from mu_jax.overrides import overridden
from mu_jax.run import Run
from mu_jax.run_dir import RunDir


class Over(NamedTuple):
    """What is swept: a setting's dotted name, and its values as written."""

    setting: str
    values: list[str]


def options(rest: list[str]) -> tuple[Over, list[str]]:
    """`--over SETTING VALUE...`, and what else there is.

    Raises:
      UserError: there is none, or one without values.
    """
    if "--over" not in rest:
        raise UserError(
            "mu sweep without --over",
            "--over SETTING VALUE ...",
            "for example: --over edit.seed 0 1 2",
        )
    at = rest.index("--over") + 1
    end = next((i for i in range(at, len(rest)) if rest[i].startswith("--")), len(rest))
    setting, *values = rest[at:end] or [""]
    if not values or len(set(values)) < len(values):
        raise UserError(
            f"--over {' '.join(rest[at:end])}".strip(),
            "a setting and different values of it",
            "for example: --over edit.seed 0 1 2",
        )
    return Over(setting, values), rest[: at - 1] + rest[end:]


def sweep(run: Run, over: Over) -> None:
    """Makes the runs, one after the other, and prints one table over them.

    `run` says everything but the setting; its own directory is not used.
    """
    made: list[RunDir] = []
    for value in over.values:
        one = _with(run, over.setting, value)
        run.console.say(f"{over.setting} = {value}: {one.dir.path}")
        for earlier in made[:1]:
            one.adopt(earlier)
        stages.start(one, "run")
        made.append(one.dir)
    compare.compare([run_dir.path for run_dir in made], run.console)


def _with(run: Run, setting: str, value: str) -> Run:
    """The run of one value."""
    config = overridden(run.config, [f"--{setting}", value], "mu sweep")
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", said := f"{setting}-{value}")
    if short != said:  # another value may read alike
        short += f"-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    config = dataclasses.replace(config, name=f"{run.config.name}.{short}")
    path = run.dir.path.with_name(config.name)
    return dataclasses.replace(run, config=config, dir=RunDir(path))
