"""The command line: `mu STAGE CONFIG|RUN [--runs DIR] [--dotted.override value]`."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import tyro

from mu_jax import config as configs
from mu_jax import stages
from mu_jax.checkpoints import cache
from mu_jax.config import Config
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.load import TINY
from mu_jax.plan import command as plan
from mu_jax.run import Run
from mu_jax.run_dir import RunDir

USAGE = """\
mu: find the MLPs that look a fact up, edit only those, see whether the fact stays gone.

usage: mu STAGE CONFIG|RUN [--runs DIR] [--force] [--dotted.override VALUE ...]

stages
{stages}
  run       all of the above, as far as they are not up to date
  plan      whether a run fits a TPU topology, and what it costs; no TPU is needed

arguments
  CONFIG    a Python file with get_config(), such as configs/tiny.py
  RUN       the directory of an earlier run; its config is used

options
  --runs DIR   where runs are kept (default: runs)
  --force      redo what is up to date
  --topology v5e:4x4, --search, --only STAGE, --json       of plan
  --help       this text; behind a CONFIG or RUN, every setting that can be overridden

examples
  mu run configs/gemma3_270m_sports.py
  mu facts configs/gemma3_270m_sports.py --facts.path athletes.csv
  mu edit runs/gemma3_270m_sports --edit.steps 20 --edit.loss.weight 0.5
  mu evaluate runs/gemma3_270m_sports
  mu plan configs/gemma2_9b_sports.py --topology v5e:4x4
"""


_HELP = ("-h", "--help", "help")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, 1 (machine) or 2 (input)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        return _command(argv, console)
    except UserError as error:
        console.finish()
        print(f"mu: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        console.finish()
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or str(error)
        print(
            f"mu: {reason}{where}; nothing half-written was left; free space or choose"
            " another --runs, and run the same command again",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        console.finish()
        print("mu: interrupted; run the same command to go on", file=sys.stderr)
        return 130


def _command(argv: list[str], console: Console) -> int:
    if not argv or argv[0] in _HELP or argv[1:2] in ([word] for word in _HELP):
        lines = (f"  {n:9} {f.__doc__}" for n, f in stages.STAGES.items())
        print(USAGE.format(stages="\n".join(line.rstrip() for line in lines)))
        return 0 if argv else 2
    stage, *rest = argv
    names = [*stages.STAGES, "run", "plan"]
    if stage not in names:
        raise UserError(
            f"unknown stage {stage!r}",
            f"one of {', '.join(names)}",
            _nearest(stage, names),
        )
    if not rest or rest[0].startswith("-"):
        raise UserError(
            f"mu {stage} without a config",
            "a config file or a run directory",
            f"for example: mu {stage} configs/tiny.py",
        )
    target, *rest = rest
    if stage == "plan":
        own, rest = plan.options(rest)
        config = _overridden(configs.load(target), rest, f"mu plan {target}")
        return plan.command(config, own, progress=console.progress)
    runs, force, rest = _options(rest)
    loaded = configs.load(target)
    config = _overridden(loaded, rest, f"mu {stage} {target}")
    path = Path(target) if Path(target).is_dir() else Path(runs) / config.name
    run = Run(config, RunDir(path), console, force)
    with _compiling(config):
        stages.start(run, stage)
    return 0


def _options(rest: list[str]) -> tuple[str, bool, list[str]]:
    """--runs and --force, and what else there is."""
    runs, others, force = "runs", [], False
    queue = list(rest)
    while queue:
        word = queue.pop(0)
        if word == "--force":
            force = True
        elif word == "--runs" or word.startswith("--runs="):
            value = word.partition("=")[2] or (queue.pop(0) if queue else "")
            if not value:
                raise UserError("--runs without a directory", "--runs DIR")
            runs = value
        else:
            others.append(word)
    return runs, force, others


def _overridden(config: Config, args: list[str], prog: str) -> Config:
    """The config with the dotted overrides of the command line applied."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found, unknown = tyro.cli(
                Config,
                default=config,
                args=args,
                prog=prog,
                return_unknown_args=True,
                config=(tyro.conf.AvoidSubcommands,),  # the config says which class
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"[^\x20-\x7e]+|-{3,}", " ", said.getvalue())  # a box's lines
        reason = re.split(r"Argument helptext|For full helptext", text)[0]
        reason = " ".join(reason.replace("Value error", "").split())
        if "; expected " in reason:  # a setting's own check, already in our form
            raise UserError(reason.partition(": ")[2]) from None
        raise UserError(
            reason, "a value of the setting's type", f"see: {prog} --help"
        ) from None
    if unknown:
        flags = [f"--{path}" for path in _paths(config)]
        raise UserError(
            f"unknown setting {unknown[0]!r}",
            "a setting of the config",
            _nearest(unknown[0].partition("=")[0], flags) or f"see: {prog} --help",
        )
    return found


def _paths(value, prefix: str = "") -> list[str]:
    """The dotted names of every leaf of a config."""
    if dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, dict):
        items = list(value.items())
    else:
        return [prefix.replace("_", "-")]
    return [
        path
        for name, member in items
        for path in _paths(member, f"{prefix}.{name}" if prefix else name)
    ]


def _nearest(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"perhaps you meant {near[0]}" if near else ""


@contextlib.contextmanager
def _compiling(config: Config) -> Iterator[None]:
    """Keeps compiled programs beside the converted models, for the next run.

    Those of the tiny model are compiled to be ready soon rather than to run fast.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = cache.directory() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", before or config.model == TINY)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


if __name__ == "__main__":
    sys.exit(main())
