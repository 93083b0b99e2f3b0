"""An edited model in a form that others open.

hf      a Hugging Face directory, for `transformers`
gemma   an official checkpoint, for `gemma.gm`
delta   only the edited tensors, in one file, to be applied to the base
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu_jax.checkpoints import delta, delta_file, export_dir
from mu_jax.checkpoints.huggingface import directory as huggingface_dir
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.config import load
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.overrides import at_home
from mu_jax.run import Run
from mu_jax.run_dir import RunDir
from mu_jax.selections import parts
from mu_jax.types import Edit, Progress, silent

USAGE = (
    "mu export RUN --to hf|gemma|delta DIR [--edit NAME] [--dtype float32|bfloat16]"
    " [--force]"
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
) -> None:
    """Exports one edit of a run, by default that of its first selection.

    Args:
      to: one of TARGETS.
      directory: new, empty, or an earlier export; `run.force` replaces any other.
      dtype: of all tensors, "float32" or "bfloat16"; by default what they are.

    Raises:
      UserError: an unknown target or edit, an edit that is not made yet, or a
        directory that holds other things.
    """
    name = _edit(run, name)
    edit = run.read_edit(name)
    keep = (run.dir.path,)
    left_out = write(
        run.model, edit, to, directory, base=run.config.model, dtype=dtype, keep=keep,
        provenance=run.provenance, force=run.force, progress=run.progress,
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
    keep: tuple[Path, ...] = (),
    progress: Progress = silent,
) -> list[str]:
    """Writes `model` with `edit` to a directory.

    Args:
      model: the unedited one. If its origin is a Hugging Face directory, that is
        copied, byte for byte but for the edited tensors, unless a dtype is asked for.
      base: what it is called in the note.
      keep: directories that the export must not replace.

    Returns:
      The files of the base that were left out: its weights in other formats.
    """
    if to not in TARGETS:
        raise UserError(f"the target {to!r}", f"one of {', '.join(TARGETS)}")
    if dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"the dtype {dtype!r}", "float32 or bfloat16")
    name = edit.selection.name
    note = {"to": to, "base": base, "edit": name, "tensors": parts(edit.selection)}
    note |= {"provenance": dict(provenance or {})}
    origin = model.origin
    copied = to == "hf" and dtype is None and huggingface_dir.is_directory(origin)
    over = origin if copied else None
    keep = (*keep, *((origin,) if origin else ()))
    left_out: list[str] = []
    with export_dir.written(directory, note, force=force, keep=keep) as folder:
        if to == "delta":
            made = delta.make(model, edit, provenance)
            delta_file.write(folder / DELTA, made)
        elif over:
            left_out = huggingface_dir.patch(folder, over, model.spec, edit, progress)
        elif to == "hf":
            huggingface_dir.write(folder, model.update(edit), dtype, progress)
        else:
            edited = model.update(edit)
            official_dir.save(folder, model.spec, edited.params, dtype)
            files = huggingface_dir.tokenizer_files(model.tokenizer)
            if official_dir.TOKENIZER in files:
                content = files[official_dir.TOKENIZER]
                (folder / official_dir.TOKENIZER).write_bytes(content)
    return left_out


def main(args: list[str], console: Console) -> None:
    """`mu export RUN --to TARGET DIR [--edit NAME] [--dtype DTYPE] [--force]`.

    Raises:
      UserError: an option or a word too few or too many, and what `export` raises.
    """
    options: dict[str, str | None] = dict.fromkeys(("--to", "--edit", "--dtype"))
    words, queue, force = [], list(args), False
    while queue:
        word, _, value = queue.pop(0).partition("=")
        if word == "--force":
            force = True
        elif word in options:
            options[word] = value or (queue.pop(0) if queue else None)
        else:
            words.append(word)
    to = options["--to"]
    if len(words) != 2 or to is None or any(w.startswith("-") for w in words):
        raise UserError(f"mu export {' '.join(args)}", USAGE)
    source, directory = map(Path, words)
    if not source.is_dir():
        raise UserError(f"no run directory {source}", "what `mu run` made", USAGE)
    config = at_home(load(str(source)), (), console.say)
    run = Run(config, RunDir(source), console, force)
    export(run, to, directory, options["--edit"], options["--dtype"])


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
