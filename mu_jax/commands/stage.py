"""A stage of a run, or all of them: `mu STAGE CONFIG|RUN [option ...]`.

What other commands need that make a run, too, is `begun`.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from mu_jax import inputs, stages
from mu_jax.checkpoints import cache
from mu_jax.commands.words import at_home, concerns, overridden, target
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.load import TINY
from mu_jax.runs import swept
from mu_jax.runs.config import Config
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run


def main(stage: str, args: list[str], console: Console) -> None:
    """Makes what is not up to date."""
    with begun(stage, *target(stage, args), console) as run:
        stages.start(run, stage)


@contextlib.contextmanager
def begun(command: str, where: str, args: list[str], console: Console) -> Iterator[Run]:
    """The run of a config or run directory, with what the command line says of it."""
    options, rest = _options(args)
    _join(options, console)
    runs = inputs.local(options.get("--runs", "runs"), "--runs")
    given = dataclasses.replace(load(where), chosen=())  # by no command line
    config = overridden(given, rest, f"mu {command} {where}")
    path = Path(where) if Path(where).is_dir() else runs / config.name
    if "--as" in options and command != "evaluate":
        raise UserError(
            f"mu {command} --as {options['--as']}", "mu evaluate RUN --as DTYPE"
        )
    if path == Path(where):
        config = at_home(config, rest, console.say)
    config = _chosen(config, RunDir(path), rest)
    only = {name: options[name] for name in _ONLY if name in options}
    distributed.alone()
    run = Run(config, RunDir(path), console, "--force" in options, only)
    console.on_gone = run.preemption.note  # it saves and stops
    with _compiling(config), run.preemption.watched():
        if _SEVERAL & options.keys():
            run.meet()
        yield run


def _chosen(config: Config, run: RunDir, rest: list[str]) -> Config:
    """The config with what a sweep has chosen for the run.

    Raises:
      UserError: the command line says something else of it.
    """
    found = run.read_choices()
    said = [word.partition("=")[0] for word in rest if word.startswith("--")]
    for word, choice in itertools.product(said, found):
        if concerns(config, word[2:], choice):
            raise UserError(
                f"{word}, which a sweep chose for {choice.model}",
                "one of both",
                f"leave it out, or remove {run.path / swept.NAME}",
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
