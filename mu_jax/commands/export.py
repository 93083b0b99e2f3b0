"""An edited model in a form that others open.

hf      a Hugging Face directory, for `transformers`
gemma   an official checkpoint, for `gemma.gm`
delta   only the edited tensors, in one file, to be applied to the base
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_jax import inputs
from mu_jax.checkpoints import delta, delta_file, export_dir, rounding
from mu_jax.checkpoints.huggingface import directory as huggingface_dir
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.commands.words import Parser, at_home
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run
from mu_jax.selectors.selections import parts
from mu_jax.types import Edit, Progress, silent

USAGE = (
    "mu export RUN --to hf|gemma|delta DIR [--edit NAME] [--dtype float32|bfloat16]"
    " [--rounded] [--force]"
)
TARGETS = ("hf", "gemma", "delta")
DELTA = f"delta{delta_file.SUFFIX}"
"""The file in a directory of the target `delta`."""


def export(
    run: Run,
    to: str,
    directory: Path,
    name: str | None = None,
    dtype: str | None = None,
    rounded: bool = False,
) -> None:
    """Exports one edit of a run, by default that of its first selection.

    Args:
      to: one of TARGETS.
      directory: new, empty, or an earlier export; `run.force` replaces any other.
      dtype: of all tensors, "float32" or "bfloat16"; by default what they are.
      rounded: even if rounding to that dtype takes much of the edit.

    Raises:
      UserError: an unknown target or edit, an edit that is not made yet or that little
        would be left of, or a directory that holds other things.
    """
    name = _edit(run, name)
    edit = run.read_edit(name)
    left_out = write(
        run.model, edit, to, directory, base=run.config.model, dtype=dtype,
        provenance=run.provenance, force=run.force, rounded=rounded,
        sources=(run.dir.path,), progress=run.progress, say=run.console.say,
    )  # fmt: skip
    for file in left_out:
        run.console.say(f"  left out, as it holds the unedited weights: {file}")
    run.console.say(f"  {name} ({parts(edit.selection)}) as {to}: {directory}")


def write(
    model: Model,
    edit: Edit,
    to: str,
    directory: Path,
    *,
    base: str,
    dtype: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    force: bool = False,
    rounded: bool = False,
    sources: tuple[Path, ...] = (),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Writes `model` with `edit` to a directory.

    Args:
      model: the unedited one. If its origin is a Hugging Face directory, that is
        copied, byte for byte but for the edited tensors; a dtype that is asked for is
        then that of all its tensors, and of its config.
      base: what it is called in the note.
      rounded: even if rounding leaves less than `rounding.ENOUGH` of the edit's norm.
      sources: what the edit came from, which the export must leave alone.
      say: told what rounding leaves of the edit.

    Returns:
      The files of the base that were left out: its weights in other formats.
    """
    if to not in TARGETS:
        raise UserError(f"the target {to!r}", f"one of {', '.join(TARGETS)}")
    if dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"the dtype {dtype!r}", "float32 or bfloat16")
    if dtype and to == "delta":
        raise UserError(
            f"--to delta --dtype {dtype}",
            "no dtype: a delta holds the tensors as they were trained",
            "leave it out",
        )
    name = edit.selection.name
    note = {"to": to, "base": base, "edit": name, "tensors": parts(edit.selection)}
    note |= {"provenance": dict(provenance or {})}
    origin = model.origin
    over = origin if to == "hf" and huggingface_dir.is_directory(origin) else None
    note |= _rounding(model, edit, to, dtype, over, rounded, say)
    file = (Path(base),) if base.endswith(".gguf") else ()
    sources = (*sources, *file, *((origin,) if origin else ()))
    left_out: list[str] = []
    with export_dir.written(directory, note, force=force, sources=sources) as folder:
        if to == "delta":
            made = delta.make(model, edit, provenance)
            delta_file.write(folder / DELTA, made)
        elif over:
            how = {"dtype": dtype, "progress": progress}
            left_out = huggingface_dir.patch(folder, over, model.spec, edit, **how)
        elif to == "hf":
            huggingface_dir.write(folder, model.update(edit), dtype, progress)
        else:
            edited = model.update(edit)
            official_dir.save(folder, model.spec, edited.params, dtype)
            files = huggingface_dir.tokenizer_files(model.tokenizer)
            if official_dir.TOKENIZER in files:
                content = files[official_dir.TOKENIZER]
                (folder / official_dir.TOKENIZER).write_bytes(content)
    if to != "delta" and not over and not model.tokenizer.files():
        say(f"  no tokenizer is written: that of {base} is in no file")
    return left_out


def _rounding(
    model: Model,
    edit: Edit,
    to: str,
    dtype: str | None,
    over: Path | None,
    rounded: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """For the note: what rounding to the target's formats leaves of the edit.

    Raises:
      UserError: too little, unless `rounded`.
    """
    if to == "delta":
        return {}  # which holds the tensors as they were trained
    changes = delta.make(model, edit).changes
    if over and not dtype:
        dtypes = huggingface_dir.dtypes(over, model.spec, changes)
    else:
        dtypes = {
            m: np.dtype(dtype or change.old.dtype) for m, change in changes.items()
        }
    narrower = {
        np.dtype(dtypes[m]).name
        for m, change in changes.items()
        if np.promote_types(dtypes[m], change.old.dtype) != dtypes[m]
    }
    if not narrower:
        return {}
    found = rounding.left(changes, dtypes)
    what = f"{edit.selection.name or 'the edit'} in {', '.join(sorted(narrower))}"
    if not rounded:
        rounding.check(found, what)
    say(f"  {what}: rounding leaves {rounding.spell(found)}")
    return {"left": found._asdict()}


def main(args: list[str], console: Console) -> None:
    """Runs the command; see USAGE.

    Raises:
      UserError: an option or a word too few or too many, and what `export` raises.
    """
    distributed.alone()
    said = _parser().parse_args(args)
    source = inputs.local(said.run, "the run")
    directory = inputs.local(said.directory, "the export")
    if not source.is_dir():
        raise UserError(f"no run directory {source}", "what `mu run` made", USAGE)
    config = at_home(load(str(source)), (), console.say)
    run = Run(config, RunDir(source), console, said.force)
    export(run, said.to, directory, said.edit, said.dtype, said.rounded)


def _parser() -> Parser:
    parser = Parser("export", USAGE, __doc__)
    parser.add_argument("run", metavar="RUN", help="the directory of a run with edits")
    parser.add_argument("directory", metavar="DIR", help="new, empty, or an export")
    parser.add_argument("--to", required=True, help="hf, gemma or delta")
    parser.add_argument("--edit", metavar="NAME", help="(default: the config's first)")
    parser.add_argument(
        "--dtype", help="of all tensors: float32 or bfloat16 (default: as they are)"
    )
    parser.add_argument(
        "--rounded",
        action="store_true",
        help="even if rounding to that dtype leaves less than 90 %% of the edit's norm:"
        " that is not the model that was measured; --dtype float32 keeps all of it",
    )
    parser.add_argument("--force", action="store_true", help="replace any other DIR")
    return parser


def _edit(run: Run, name: str | None) -> str:
    """The edit called `name`, by default the first of the config."""
    names = list(run.config.edited)
    if name in names or (name is None and names):
        return name or names[0]
    near = difflib.get_close_matches(name or "", names, n=1)
    raise UserError(
        f"no edit called {name!r}" if name else "a run without selections",
        f"one of {', '.join(names)}" if names else "at least one selection",
        f"perhaps you meant {near[0]}" if near else "",
    )
