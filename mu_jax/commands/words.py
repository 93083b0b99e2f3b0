"""Words from the command line: of commands, and settings on top of a config.

mu compare RUN... --json                 `Parser`
mu edit RUN --edit.steps 20              `overridden`
"""

import argparse
import contextlib
import dataclasses
import difflib
import io
import re
import warnings
from collections.abc import Callable, Iterable
from typing import NoReturn

import jax
import tyro

from mu_jax.devices.sharding import Mesh
from mu_jax.errors import UserError
from mu_jax.runs.config import Config
from mu_jax.runs.records import keepable
from mu_jax.runs.swept import Choice


class Parser(argparse.ArgumentParser):
    """Of a command that has words of its own; what is wrong is a UserError."""

    def __init__(self, command: str, usage: str, doc: str | None):
        super().__init__(
            f"mu {command}",
            description=doc,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._said = usage

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}", self._said)


def target(command: str, args: list[str]) -> tuple[str, list[str]]:
    """The config or run that stands first, and what else there is."""
    if not args or args[0].startswith("-"):
        raise UserError(
            f"mu {command} without a config",
            "a config file or a run directory",
            f"for example: mu {command} configs/tiny.py",
        )
    return args[0], args[1:]


def overridden(config: Config, args: list[str], prog: str) -> Config:
    """The config with the dotted overrides of the command line applied."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            # A method of one's own need not be called exactly as its protocol is.
            warnings.filterwarnings("ignore", "The field `", UserWarning)
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
        reason = re.sub(r"^([\w ]+) (?=\1 )", "", reason, flags=re.I)  # its title
        reason = reason.removesuffix(".")
        if "; expected " in reason:  # a setting's own check, already in our form
            raise UserError(reason.partition(": ")[2]) from None
        raise UserError(
            reason, "a value of the setting's type", f"see: {prog} --help"
        ) from None
    if unknown:
        given = dataclasses.replace(config, chosen=())  # by a sweep, in a file
        flags = [f"--{path}" for path in _paths(given)]
        raise UserError(
            f"unknown setting {unknown[0]!r}",
            "a setting of the config",
            nearest(unknown[0].partition("=")[0], flags) or f"see: {prog} --help",
        )
    keepable(found, "")
    return found


def touched(config: Config, written: str) -> tuple[list[str], str]:
    """The edited models that a setting belongs to, and what their edit calls it.

    "edit.learning-rate" is the `learning_rate` of every selection's edit,
    "baselines.rmu.edit.weight" the `weight` of the baseline rmu; a setting that is of
    no edit belongs to no model.
    """
    first, *rest = written.split(".")
    plain = lambda name: name.replace("-", "_")
    if first == "edit" and rest:
        return list(config.selections), plain(".".join(rest))
    if first == "baselines" and len(rest) > 2 and rest[1] == "edit":
        own = [name for name in config.baselines if plain(name) == plain(rest[0])]
        return own, plain(".".join(rest[2:]))
    return [], ""


def concerns(config: Config, written: str, choice: Choice) -> bool:
    """Whether a setting, as a command line spells it, is the one that was chosen."""
    models, setting = touched(config, written)
    return choice.model in models and choice.setting == setting


def at_home(config: Config, args: Iterable[str], say: Callable[[str], None]) -> Config:
    """The config of a run directory, with a mesh for the devices that are here.

    The mesh belongs to the machine that made the run. One that the command line names
    stays, and is refused later if it does not fit.
    """
    devices = jax.device_count()
    if config.mesh.fits(devices) or any(word.startswith("--mesh") for word in args):
        return config
    mesh = Mesh()
    say(
        f"  the run's mesh ({config.mesh}) does not fit {devices} device(s): taking"
        f" {mesh.layout()}"
    )
    return dataclasses.replace(config, mesh=mesh)


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


def nearest(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.65)
    return f"perhaps you meant {near[0]}" if near else ""
