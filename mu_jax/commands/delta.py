"""`mu delta`: look at deltas, compare them, put them together, apply them."""

from collections.abc import Callable
from pathlib import Path

from mu_jax import inputs
from mu_jax.checkpoints import delta, delta_file
from mu_jax.checkpoints.delta import Delta, Difference
from mu_jax.commands.export import DELTA, write
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.load import load
from mu_jax.selectors.selections import parts
from mu_jax.types import Edit

USAGE = """\
  mu delta show DELTA                what it changes, by how much, where it is from
  mu delta diff DELTA DELTA          how two compare, tensor by tensor
  mu delta stack DELTA DELTA FILE    one for the first and then the second
  mu delta apply MODEL DELTA DIR [hf|gemma]    the model with it (default: hf)
  mu delta revert MODEL DELTA DIR [hf|gemma]   the model as it was before it

DELTA is a file, or the directory that `mu export RUN --to delta` wrote; --force
replaces a DIR that is not an export, and a FILE that is there; --rounded writes a model
in a dtype that leaves little of the edit."""


def main(args: list[str], console: Console) -> None:
    """Runs one command.

    Raises:
      UserError: an unknown one, or files that do not fit it or one another.
    """
    distributed.alone()
    flags = {word for word in args if word in ("--force", "--rounded")}
    words, force = [word for word in args if word not in flags], "--force" in flags
    command, rest = (words[0] if words else ""), words[1:]
    if words[:1] in (["-h"], ["--help"], ["help"]):
        print(USAGE)
    elif not words:
        console.say(USAGE)
    elif command == "show" and len(rest) == 1:
        _show(_read(rest[0]), console)
    elif command == "diff" and len(rest) == 2:
        for row in delta.diff(_read(rest[0]), _read(rest[1])):
            console.say(_line(row))
    elif command == "stack" and len(rest) == 3:
        _stack(*rest, force=force, console=console)
    elif command in ("apply", "revert") and len(rest) in (3, 4):
        rounded = "--rounded" in flags
        _rewrite(command, *rest, force=force, rounded=rounded, console=console)
    else:
        raise UserError(
            f"mu delta {' '.join(args)}",
            "show DELTA, diff DELTA DELTA, stack DELTA DELTA FILE,"
            " apply or revert MODEL DELTA DIR [hf|gemma]",
        )


def _stack(first: str, second: str, out: str, *, force: bool, console: Console) -> None:
    """Two deltas as one, in a file of its own."""
    file = inputs.local(out, "the delta")
    if file.resolve() in (_file(first).resolve(), _file(second).resolve()):
        raise UserError(f"a stack at {file}, one of its two deltas", "another file")
    if file.is_dir() or (file.exists() and not file.is_file()):
        raise UserError(f"{file} is no file", "a file to stack to", "give another one")
    if file.exists() and not force:
        raise UserError(
            f"{file} is there",
            "a new file",
            "give another one, or --force to replace it",
        )
    made = delta.stack(_read(first), _read(second))
    delta_file.write(file, made)
    console.say(f"  {made.name} ({parts(made.selection)}): {file}")


def _rewrite(
    command: str,
    name: str,
    file: str,
    directory: str,
    to: str = "hf",
    *,
    force: bool,
    rounded: bool,
    console: Console,
) -> None:
    """A model with a delta, or without it again, in a directory of its own."""
    if to not in ("hf", "gemma"):
        raise UserError(f"the target {to!r}", "hf or gemma")
    target = inputs.local(directory, "the export")
    made, model = _read(file), load(name, progress=console.progress)
    exchange: Callable = {"apply": delta.apply, "revert": delta.revert}[command]
    selection = made.selection
    params = exchange(model, made).selected(selection)
    write(
        model, Edit(selection, params, []), to, target, base=name,
        provenance=made.provenance, force=force, rounded=rounded,
        sources=(_file(file),), progress=console.progress, say=console.say,
    )  # fmt: skip
    console.say(f"  {command} {made.name} ({parts(selection)}), {to}: {directory}")


def _file(path: str) -> Path:
    """The file of a delta, which may be named by the directory that holds it."""
    file = inputs.local(path, "the delta")
    return file / DELTA if file.is_dir() else file


def _read(path: str) -> Delta:
    return delta_file.read(_file(path))


def _show(made: Delta, console: Console) -> None:
    chosen = made.selection
    console.say(f"  {made.name}, of {made.spec}: {parts(chosen)}")
    console.say(f"  {len(made.changes)} tensors, {chosen.n_params:,} parameters")
    commit = made.provenance.get("commit")
    if commit:
        console.say(f"  made by commit {commit}")
    for row in delta.diff(made, made):
        console.say(f"  {delta.spell(row.matrix)}: changed by {row.first:.2%}")


def _line(row: Difference) -> str:
    said = f"  {delta.spell(row.matrix)}: "
    if row.apart is None:
        only, size = (
            ("first", row.first) if row.second is None else ("second", row.second)
        )
        return f"{said}only the {only} changes it, by {size:.2%}"
    cosine = "-" if row.cosine is None else f"{row.cosine:.3f}"
    return (
        f"{said}changed by {row.first:.2%} and {row.second:.2%},"
        f" {row.apart:.2%} apart, cosine {cosine}"
    )
