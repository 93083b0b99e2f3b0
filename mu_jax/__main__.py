"""The command line: `mu STAGE CONFIG|RUN [--runs DIR] [--dotted.override value]`."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from mu_jax import inputs, stages
from mu_jax.checkpoints import cache
from mu_jax.commands import compare, delta, ending, export, harness, plan, sweep, usage
from mu_jax.commands.words import at_home, nearest, overridden
from mu_jax.console import Console
from mu_jax.devices import crew, distributed
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError
from mu_jax.load import TINY
from mu_jax.runs import choices, own
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run

_TRAVEL = {
    "export": export.main,
    "delta": delta.main,
    "harness": harness.main,
    "compare": compare.main,
}
_HELP = ("-h", "--help", "help")
_STAGES = {
    **{name: stage.__doc__ or "" for name, stage in stages.STAGES.items()},
    "run": "Facts to report, as far as they are not up to date.",
    "sweep": sweep.__doc__ or "",
    "plan": plan.__doc__ or "",
}
"""What each stage does, in words."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 (machine) or 2 (input).

    Stopped from outside it is 130, 141 or 143: see `ending`.
    """
    status = _status(argv)
    crew.end(status)
    return status


def _status(argv: list[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        try:
            with console.hearing(), crew.as_one(Preempted):
                return _command(argv, console)
        finally:
            if sys.stdout:  # or a pipe that is closed would tell at exit
                sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        said, status = ending.told(error)
        silent = isinstance(error, Preempted) and not distributed.is_writer()
        console.last("" if silent else said)
        return ending.GONE if console.gone else status


def _command(argv: list[str], console: Console) -> int:
    if not argv or argv[0] in _HELP:
        print(usage.page(_STAGES), end="")
        return 0 if argv else 2
    stage, *rest = _trusting(argv)
    if stage in _STAGES and rest[:1] in ([word] for word in _HELP):
        print(usage.of_stage(stage, _STAGES[stage]), end="")
        return 0
    if stage in _TRAVEL:
        distributed.alone()
        _TRAVEL[stage](rest, console)
        return 0
    names = [*_STAGES, *_TRAVEL]
    if stage not in names:
        raise UserError(
            f"unknown stage {stage!r}",
            f"one of {', '.join(names)}",
            nearest(stage, names),
        )
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"mu {stage} without a config",
            "a config file or a run directory",
            f"for example: mu {stage} configs/tiny.py",
        )
    target, *rest = rest
    if stage == "plan":
        asked, rest = plan.options(rest)
        config = overridden(load(target), rest, f"mu plan {target}")
        return plan.command(config, asked, progress=console.progress)
    options, rest = _options(rest)
    over, rest = sweep.options(rest) if stage == "sweep" else (None, rest)
    _join(options, console)
    runs = inputs.local(options.get("--runs", "runs"), "--runs")
    given = dataclasses.replace(load(target), chosen=())  # by no command line
    config = overridden(given, rest, f"mu {stage} {target}")
    path = Path(target) if Path(target).is_dir() else runs / config.name
    if "--as" in options and stage != "evaluate":
        raise UserError(
            f"mu {stage} --as {options['--as']}", "mu evaluate RUN --as DTYPE"
        )
    if path == Path(target):
        config = at_home(config, rest, console.say)
    config = _chosen(config, RunDir(path), rest)
    only = {name: options[name] for name in _ONLY if name in options}
    distributed.alone()
    run = Run(config, RunDir(path), console, "--force" in options, only)
    console.on_gone = run.preemption.note  # it saves and stops
    with _compiling(config), run.preemption.watched():
        if _SEVERAL & options.keys():
            run.meet()
        if over:
            sweep.sweep(run, over)
        else:
            stages.start(run, stage)
    return 0


def _trusting(argv: list[str]) -> list[str]:
    """The words without `--trust FILE`; those files are imported."""
    others, queue = [], list(argv)
    while queue:
        said = queue.pop(0)
        word, _, file = said.partition("=")
        if word != "--trust":
            others.append(said)
            continue
        file = file or (queue.pop(0) if queue else "")
        if not file:
            raise UserError("--trust without a file", "--trust FILE")
        own.trust(Path(file))
    return others


def _chosen(config: Config, run: RunDir, rest: list[str]) -> Config:
    """The config with what a sweep has chosen for the run.

    Raises:
      UserError: the command line says something else of it.
    """
    found = run.read_choices()
    said = [word.partition("=")[0] for word in rest if word.startswith("--")]
    for word, choice in itertools.product(said, found):
        if sweep.concerns(config, word[2:], choice):
            raise UserError(
                f"{word}, which a sweep chose for {choice.model}",
                "one of both",
                f"leave it out, or remove {run.path / choices.NAME}",
            )
    return dataclasses.replace(config, chosen=found)


_FLAGS = ("--force", "--distributed")
_VALUES = {
    "--runs": "DIR",
    "--coordinator": "HOST:PORT",
    "--processes": "N",
    "--process": "I",
    "--edit": "NAME,...",
    "--attack": "NAME,...",
    "--as": "DTYPE",
}
_ONLY = ("--edit", "--attack", "--as")
_SEVERAL = {"--distributed", "--coordinator", "--processes", "--process"}


def _options(rest: list[str]) -> tuple[dict[str, str], list[str]]:
    """What is said of the run rather than of its config, and what else there is."""
    options, others, queue = {}, [], list(rest)
    while queue:
        word = queue.pop(0)
        name, _, value = word.partition("=")
        if word in _FLAGS:
            options[word] = ""
        elif name in _VALUES:
            value = value or (queue.pop(0) if queue else "")
            if not value:
                what = "a directory" if name == "--runs" else "a value"
                raise UserError(f"{name} without {what}", f"{name} {_VALUES[name]}")
            options[name] = value
        else:
            others.append(word)
    return options, others


def _join(options: dict[str, str], console: Console) -> None:
    """Joins the other processes, if there are any; one of them speaks."""
    if not _SEVERAL & options.keys():
        return
    numbers = []
    for name in ("--processes", "--process"):
        text = options.get(name)
        if text and not text.isdigit():
            raise UserError(f"{name} {text}", "a number")
        numbers.append(int(text) if text else None)
    distributed.start(options.get("--coordinator"), *numbers)
    if not distributed.is_writer():
        console.mute()


@contextlib.contextmanager
def _compiling(config: Config) -> Iterator[None]:
    """Keeps compiled programs for the next run.

    Those of the tiny model are compiled to be ready soon rather than to run fast.
    """
    import jax

    cache.keep_programs()
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", before or config.model in TINY)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


if __name__ == "__main__":
    sys.exit(main())
