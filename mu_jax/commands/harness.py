"""`mu harness`: standard benchmarks of a run's models, put beside its other rows."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from mu_jax import inputs
from mu_jax.checkpoints.cache import keep_programs
from mu_jax.commands.words import Parser, at_home
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.evals.harness import NAME, Harness, Loaded
from mu_jax.report import terminal
from mu_jax.report.benchmarks import scores
from mu_jax.report.tables import Table
from mu_jax.runs.directory import RunDir
from mu_jax.runs.journal import SCALARS
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run
from mu_jax.types import UNEDITED, Row

USAGE = (
    "mu harness RUN --tasks A,B [--edit NAME ...] [--limit N] [--num-fewshot K]"
    " [--context N] [--batch N] [--include-path DIR] [--force]"
)


def benchmark(run: Run, harness: Harness, names: Sequence[str] = ()) -> list[Row]:
    """Measures models of a run, and keeps their rows in `harness/NAME/TASK.jsonl`.

    Written after each task of each model. What was measured with the same settings is
    not measured again, unless `run.force`.

    Args:
      names: edits, or `unedited`; by default that and all edits of the config that
        are made with its settings.

    Returns:
      The rows of these models and tasks, measured now or before.

    Raises:
      UserError: an unknown edit, one that is not made yet, or what `Harness.load`
        raises; in either case before anything is measured.
    """
    chosen = _chosen(run, names)
    edits = {name: [f"edits/{name}"] for name in chosen if name != UNEDITED}
    if names:  # asked for: none may be missing
        for name in edits:
            run.need(f"edits/{name}")
    else:
        chosen = [UNEDITED, *run.usable(edits)]
    loaded = harness.load()
    return [row for name in chosen for row in _measured(run, harness, name, loaded)]


def show(run: Run, rows: Sequence[Row], names: Sequence[str]) -> None:
    """The rows as a table: a line a model, a column a task and metric."""
    chosen = [row for row in rows if not names or row.prompt in names]
    grid = scores(Table(chosen))
    if grid:
        terminal.show(grid, run.console)


def main(args: list[str], console: Console) -> None:
    """Runs the command; see USAGE.

    Raises:
      UserError: an option or a word too few or too many, and what `benchmark` raises.
    """
    distributed.alone()
    said = _parser().parse_args(args)
    source = inputs.local(said.run, "the run")
    inputs.local(said.include_path or "", "--include-path")
    if not source.is_dir():
        raise UserError(f"no run directory {source}", "what `mu run` made", USAGE)
    harness = Harness(
        tuple(filter(None, said.tasks.split(","))),
        limit=said.limit,
        num_fewshot=said.num_fewshot,
        batch=said.batch,
        context=said.context,
        include_path=said.include_path,
    )
    keep_programs()
    config = at_home(load(str(source)), (), console.say)
    run = Run(config, RunDir(source), console, said.force)
    rows = benchmark(run, harness, said.edit)
    named = [r.prompt for r in rows if r.prompt in harness.tasks]
    show(run, rows, named if set(named) == set(harness.tasks) else ())


def _parser() -> Parser:
    parser = Parser("harness", USAGE, __doc__)
    parser.add_argument("run", metavar="RUN", help="the directory of a run with edits")
    parser.add_argument(
        "--tasks", required=True, help="of lm-eval, with commas: hellaswag,sciq"
    )
    parser.add_argument(
        "--edit", nargs="+", default=[], metavar="NAME",
        help="which models, `unedited` among them (default: it and all edits)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="documents of each task, at most")
    parser.add_argument("--num-fewshot", type=int, help="solved examples in front")
    parser.add_argument(
        "--context", type=int, default=Harness.context, help="tokens a row, at most"
    )
    parser.add_argument(
        "--batch", type=int, default=Harness.batch, help="rows a forward pass"
    )
    parser.add_argument(
        "--include-path",
        metavar="DIR",
        help="further task files; they can name Python code, which is run: only from"
        " people you trust",
    )
    parser.add_argument("--force", action="store_true", help="measure again")
    return parser


def _chosen(run: Run, names: Sequence[str]) -> list[str]:
    """The models asked for, each once."""
    edited = list(run.config.edited)
    known = [UNEDITED, *edited]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(
                f"no edit called {name!r}",
                f"one of {', '.join(known)}",
                f"perhaps you meant {near[0]}" if near else "",
            )
    if not names and not edited:
        raise UserError(
            "a run without edits",
            "what `mu edit` makes",
            f"add selections to its config, or ask for --edit {UNEDITED}",
        )
    return list(dict.fromkeys(names or known))


def _measured(run: Run, harness: Harness, name: str, loaded: Loaded) -> Iterator[Row]:
    """The rows of one model, task by task; what is not up to date is measured now."""
    model = None
    for task, part in loaded.items():
        artefact, asked = f"{NAME}/{name}/{task}", _digest(harness.settings(part))
        if run.fresh(artefact, asked) and not run.force:
            run.console.say(f"  {name}, {task}: up to date")
        else:
            with run.dir.held(artefact):
                run.console.say(f"  asking {name}: {task}")
                model = model or run.edited(name)
                with run.journal(artefact, SCALARS, of=[name, asked]) as journal:
                    rows = harness.measure(model, name, part, run.progress, journal)
                    run.dir.write_rows(artefact, rows)
                    run.stamp(artefact, asked)
        yield from run.dir.read_rows(artefact)


def _digest(settings: Any) -> str:
    """Of what is asked, beside what the model depends on."""
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
