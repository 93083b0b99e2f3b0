"""A run for each of several values of one setting: seeds, budgets, numbers of facts.

Each value has a run directory of its own, `RUNS/NAME.SETTING-VALUE`, which can be taken
up, attacked and compared like any other. What the value does not touch (facts, scores,
selections, what the unedited model says) is copied from where an earlier one, of this
sweep or another of the same config, has it.

With `--choose METRIC` the value is chosen that does best, for every model that it
touches by itself, on facts that are set aside for this (`facts.tune`) and in no report:
the runs, `RUNS/NAME.tune.SETTING-VALUE`, forget one half of them and hold the other
out. What was chosen is kept in `RUNS/NAME/chosen.jsonl`, with what was tried; the run
NAME is made with it.
"""

import dataclasses
import glob
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from mu_jax import stages
from mu_jax.commands import compare
from mu_jax.commands.stage import begun
from mu_jax.commands.words import concerns, overridden, target, touched
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.report.score import METRICS
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.run import Run
from mu_jax.runs.swept import Choice


class Over(NamedTuple):
    """What is swept: a setting's dotted name, and its values as written.

    `choose` names the measure by which one of them is chosen; empty: none is.
    """

    setting: str
    values: list[str]
    choose: str = ""


def main(args: list[str], console: Console) -> None:
    """Runs the command; see the module."""
    where, rest = target("sweep", args)
    over, rest = options(rest)
    with begun("sweep", where, rest, console) as run:
        sweep(run, over)


def options(rest: list[str]) -> tuple[Over, list[str]]:
    """`--over SETTING VALUE... [--choose METRIC]`, and what else there is.

    Raises:
      UserError: there is none, or one without values, or no such measure.
    """
    choose = ""
    if "--choose" in rest:
        at = rest.index("--choose")
        choose = (rest[at + 1 :] or [""])[0]
        rest = rest[:at] + rest[at + 2 :]
        if choose not in METRICS:
            raise UserError(f"--choose {choose}", f"one of {', '.join(METRICS)}")
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
    return Over(setting, values, choose), rest[: at - 1] + rest[end:]


def sweep(run: Run, over: Over) -> None:
    """Makes the runs, one after the other, and prints one table over them.

    `run` says everything but the setting; its own directory is not used, but for what
    was chosen.
    """
    home, models = run.dir, []
    if over.choose:
        models, run = _models(run.config, over.setting), _tuning(run)
        run = dataclasses.replace(run, only={**run.only, "--edit": ",".join(models)})
    made: list[Run] = []
    for value in over.values:
        one = _with(run, over.setting, value)
        run.console.say(f"{over.setting} = {value}: {one.dir.path}")
        for earlier in _beside(run):
            one.adopt(earlier)
        for stage in _TUNED if over.choose else ("run",):
            stages.start(one, stage)
        made.append(one)
    compare.compare([one.dir.path for one in made], run.console)
    if over.choose:
        home.add_choices(list(_chosen(run, over, made, models)))


_TUNED = ("facts", "localize", "select", "edit", "evaluate")


def _beside(run: Run) -> list[RunDir]:
    """The run directories of sweeps over a config, as far as they were made."""
    home, pattern = run.dir.path.parent, f"{glob.escape(run.config.name)}.*"

    def found() -> bytes:
        there = (p for p in home.glob(pattern) if p.is_dir() and not p.is_symlink())
        return json.dumps(sorted(path.name for path in there)).encode()

    return [RunDir(home / name) for name in json.loads(distributed.first(found))]


def _models(config: Config, written: str) -> list[str]:
    """The edited models for which a value is to be chosen.

    Raises:
      UserError: the setting is of none, or their edit has no such one.
    """
    models, setting = touched(config, written)
    if not models:
        raise UserError(
            f"--choose with --over {written}",
            "a setting of an edit: edit.NAME, or baselines.BASELINE.edit.NAME with"
            f" BASELINE one of {', '.join(config.baselines) or '(none)'}",
            "without --choose any setting can be swept",
        )
    for name in models:
        edit = config.edit_of(name)
        try:
            attrgetter(setting)(edit)
        except AttributeError:
            raise UserError(
                f"--over {written}", f"a setting of {type(edit).__name__}"
            ) from None
    return models


def _tuning(run: Run) -> Run:
    """The run on facts that no report is of; nothing but what `score` needs.

    Raises:
      UserError: none are set aside.
    """
    if not run.config.facts.tune:
        raise UserError(
            "mu sweep --choose without facts to choose on",
            "some that no report is of, half of them to forget, half to hold out",
            "add: --facts.tune 32",
        )
    facts = dataclasses.replace(run.config.facts, tuning=True)
    text_loss = run.config.text_loss
    config = dataclasses.replace(
        run.config,
        name=f"{run.config.name}.tune",
        facts=facts,
        text_loss=dataclasses.replace(text_loss, limit=text_loss.batch),
        probe=None,
        lens=None,
        depth=None,
        samples=None,
    )
    path = run.dir.path.with_name(config.name)
    return dataclasses.replace(run, config=config, dir=RunDir(path))


def _chosen(
    run: Run, over: Over, made: Sequence[Run], models: Sequence[str]
) -> Iterator[Choice]:
    """The best value for each model, said as it is found.

    Raises:
      UserError: the measure is no number for one of them.
    """
    _, setting = touched(run.config, over.setting)
    rows = [one.rows() for one in made]
    facts = made[0].dir.read_facts()
    looked_at = tuple(f.id for f in (*facts.forget, *facts.split("heldout")))
    for model in models:
        tried = [METRICS[over.choose](of, model) for of in rows]
        if not all(map(math.isfinite, tried)):
            raise UserError(
                f"{over.choose} of {model} is not a number in {len(made)} runs",
                "a format in which the unedited model answers",
                "set more facts aside: --facts.tune",
            )
        best = max(range(len(tried)), key=tried.__getitem__)
        value = attrgetter(setting)(made[best].config.edit_of(model))
        run.console.say(
            f"  {model}: {setting} = {over.values[best]} ({over.choose}"
            f" {tried[best]:.2f}; {len(tried)} values tried on {len(looked_at)} facts)"
        )
        scores = dict(zip(over.values, tried, strict=True))
        how = over.choose, looked_at, run.weights
        yield Choice(model, setting, value, *how, scores)


def _with(run: Run, setting: str, value: str) -> Run:
    """The run of one value."""
    config = overridden(run.config, [f"--{setting}", value], "mu sweep")
    others = tuple(c for c in config.chosen if not concerns(config, setting, c))
    config = dataclasses.replace(config, chosen=others)
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", said := f"{setting}-{value}")
    if short != said:  # another value may read alike
        short += f"-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    config = dataclasses.replace(config, name=f"{run.config.name}.{short}")
    path = run.dir.path.with_name(config.name)
    return dataclasses.replace(run, config=config, dir=RunDir(path))
