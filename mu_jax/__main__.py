"""The command line: `mu STAGE CONFIG|RUN [--runs DIR] [--dotted.override value]`."""

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from mu_jax import (
    benchmarks,
    choices,
    compare,
    crew,
    deltas,
    distributed,
    ending,
    export,
    inputs,
    stages,
    sweep,
)
from mu_jax import config as configs
from mu_jax.checkpoints import cache
from mu_jax.config import Config
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.load import TINY
from mu_jax.overrides import at_home, nearest, overridden
from mu_jax.plan import command as plan
from mu_jax.preemption import Preempted
from mu_jax.run import Run
from mu_jax.run_dir import RunDir

USAGE = """\
mu: find the MLPs that look a fact up, edit only those, see whether the fact stays gone.

usage: mu STAGE CONFIG|RUN [--runs DIR] [--force] [--distributed]
                           [--dotted.override VALUE ...]

stages
{stages}
  run       facts to report, as far as they are not up to date
  sweep     a run for each of several values of one setting, and a table over them
  plan      whether a run fits a TPU topology, and what it costs; no TPU is needed

edits that travel
  mu export RUN --to hf|gemma|delta DIR [--edit NAME] [--dtype DTYPE] [--rounded]
                                        [--force]
  mu delta show|diff|stack|apply|revert ...   (mu delta: how each is called)

several runs
  mu compare RUN RUN ...   one table; runs that differ in seeds alone are pooled

standard benchmarks (lm-eval)
  mu harness RUN --tasks A,B [--edit NAME ...] [--limit N] ...   (mu harness RUN --help)

arguments
  CONFIG    a Python file with get_config(), such as configs/tiny.py
  RUN       the directory of an earlier run; its config is used

options
  --runs DIR   where runs are kept (default: runs)
  --force      redo what is up to date
  --edit NAME,...     which edited models to make, measure or attack, or selections to
               mask
  --attack NAME,...   which of the config's attacks to try
  --over SETTING VALUE ...   of sweep
  --choose METRIC     of sweep: which value is best, on facts set aside for it; one of
               score, injection, forgotten, injected, kept (see mu_jax/report/score.py)
  --as bfloat16   of evaluate: the edited models as they are shipped in that dtype, with
               every weight rounded to it; rows of their own ("flu as bfloat16")
  --rounded    export even if rounding to the target's dtype leaves less than 90 % of
               the edit's norm: that is not the model that was measured, and with less
               it is soon the unedited one; --dtype float32 keeps all of the edit
  --distributed   this is one of several processes that run this same command, on a TPU
               pod, GKE or Slurm, and share the run directory; see scripts/tpu_pod.sh
  --coordinator HOST:PORT --processes N --process I   likewise, started by hand: process
               0 listens there (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
               JAX_PROCESS_ID in the environment, and --distributed)
  --topology v5e:4x4, --search, --only STAGE, --json       of plan
  --help       this text; behind a CONFIG or RUN, every setting that can be overridden

examples
  mu run configs/gemma3_270m_sports.py
  mu facts configs/gemma3_270m_sports.py --facts.path athletes.csv
  mu edit runs/gemma3_270m_sports --edit.steps 20 --edit.loss.weight 0.5
  mu attack runs/gemma3_270m_sports --attack quantize,relearn --edit flu,late
  mu sweep configs/gemma3_270m_sports.py --over edit.seed 0 1 2
  mu sweep configs/gemma3_270m_sports.py --facts.tune 32 \\
      --over edit.learning_rate 3e-5 1e-4 3e-4 --choose score
  mu run configs/gemma3_270m_sports.py --mesh.fsdp 4 --dtype bfloat16
  mu plan configs/gemma2_9b_sports.py --topology v5e:4x4

SIGTERM saves and stops (status 143), and so does a closed pipe, as in `mu ... | head`
(141); the same command goes on from there. Paths are of this machine: URLs are refused.
"""

_TRAVEL = {
    "export": export.main,
    "delta": deltas.main,
    "harness": benchmarks.main,
    "compare": compare.main,
}
_HELP = ("-h", "--help", "help")


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
    if not argv or argv[0] in _HELP or argv[1:2] in ([word] for word in _HELP):
        lines = (f"  {n:9} {f.__doc__}" for n, f in stages.STAGES.items())
        print(USAGE.format(stages="\n".join(line.rstrip() for line in lines)))
        return 0 if argv else 2
    stage, *rest = argv
    if stage in _TRAVEL:
        distributed.alone()
        _TRAVEL[stage](rest, console)
        return 0
    names = [*stages.STAGES, "run", "sweep", "plan", *_TRAVEL]
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
        own, rest = plan.options(rest)
        config = overridden(configs.load(target), rest, f"mu plan {target}")
        return plan.command(config, own, progress=console.progress)
    options, rest = _options(rest)
    over, rest = sweep.options(rest) if stage == "sweep" else (None, rest)
    _join(options, console)
    runs = inputs.local(options.get("--runs", "runs"), "--runs")
    own = dataclasses.replace(configs.load(target), chosen=())  # no setting to be given
    config = overridden(own, rest, f"mu {stage} {target}")
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


def _chosen(config: Config, run: RunDir, rest: list[str]) -> Config:
    """The config with what a sweep has chosen for the run.

    Raises:
      UserError: the command line says something else of it.
    """
    found = choices.read(run)
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
