"""The command line: `mu STAGE CONFIG|RUN [--runs DIR] [--dotted.override value]`."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mu_jax import stages
from mu_jax.commands import (
    ask,
    compare,
    delta,
    ending,
    export,
    harness,
    plan,
    stage,
    sweep,
    usage,
)
from mu_jax.commands.words import nearest
from mu_jax.console import Console
from mu_jax.devices import crew, distributed
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError
from mu_jax.runs import own

_COMMANDS: dict[str, Callable[[list[str], Console], int | None]] = {
    **{name: partial(stage.main, name) for name in (*stages.STAGES, "run")},
    "ask": ask.main,
    "sweep": sweep.main,
    "plan": plan.main,
    "export": export.main,
    "delta": delta.main,
    "harness": harness.main,
    "compare": compare.main,
}
"""What each is called with: the words behind it. It returns a status, or nothing: 0."""
_HELP = ("-h", "--help", "help")
_OF_CONFIGS = {
    **{name: make.__doc__ or "" for name, make in stages.STAGES.items()},
    "run": "Facts to report, as far as they are not up to date.",
    "sweep": sweep.__doc__ or "",
    "plan": plan.__doc__ or "",
}
"""What those do that take a config or a run, in words."""


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
        print(usage.page(_OF_CONFIGS), end="")
        return 0 if argv else 2
    command, *rest = _trusting(argv)
    if command in _OF_CONFIGS and rest[:1] in ([word] for word in _HELP):
        print(usage.of_stage(command, _OF_CONFIGS[command]), end="")
        return 0
    if command not in _COMMANDS:
        raise UserError(
            f"unknown stage {command!r}",
            f"one of {', '.join(_COMMANDS)}",
            nearest(command, list(_COMMANDS)),
        )
    return _COMMANDS[command](rest, console) or 0


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


if __name__ == "__main__":
    sys.exit(main())
