"""Configs from files: of a Python file, of a run directory."""

from pathlib import Path

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.runs import own
from mu_jax.runs.config import Config
from mu_jax.runs.records import decode, keepable


def load(path: str) -> Config:
    """The config of a Python file with a `get_config()`, or of a run directory.

    Raises:
      UserError: no such file, or one that yields no config.
    """
    source = inputs.local(path, "the config or run")
    if source.is_dir():
        return read(source / "config.json")
    if not source.is_file():
        raise UserError(
            f"no config or run at {path}",
            "a Python file such as configs/tiny.py, or a run directory",
            "check the path's spelling",
        )
    if source.suffix != ".py":
        raise UserError(f"the config {path}", "a Python file with get_config()")
    get_config = getattr(own.imported(source), "get_config", None)
    if get_config is None:
        raise UserError(f"{path} has no get_config()", "one, returning a Config")
    try:
        found = get_config()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise own.failed(source, error) from None
    if not isinstance(found, Config):
        raise UserError(f"{path} returns a {type(found).__name__}", "a Config")
    keepable(found, "")
    return found


def read(path: Path) -> Config:
    """The config that a run keeps at `path`."""
    try:
        data = inputs.read(path)
    except FileNotFoundError:
        raise UserError(
            f"no {path.name} in {path.parent}",
            "a run directory",
            "start one with: mu facts CONFIG",
        ) from None
    inputs.no_link(path, "a run directory")
    try:
        found = decode(inputs.parsed(data)["config"])
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UserError(
            f"{path} cannot be read ({error})",
            "the config of a run",
            "start the run anew from its config file",
        ) from None
    if not isinstance(found, Config):
        raise UserError(f"{path} holds no config", "the config of a run")
    return found
