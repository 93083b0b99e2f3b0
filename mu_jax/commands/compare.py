"""`mu compare`: several runs in one table.

A line a run and model, so that runs of other facts, budgets or models stand side by
side. Runs that are the same but for seeds are one run with several seeds: their values
are pooled, of several draws of facts (`facts.seed`) too. Models of runs that split the
same facts alike are compared in pairs.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mu_jax import inputs
from mu_jax.commands.words import Parser
from mu_jax.console import Console
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.report import attacks, terminal
from mu_jax.report.attacks import Attacked
from mu_jax.report.differences import Pair, Side, in_pairs
from mu_jax.report.grid import Entry, Grid
from mu_jax.report.latent import depth
from mu_jax.report.tables import INTERVALS, Table, measures
from mu_jax.runs import loading
from mu_jax.runs.directory import RunDir
from mu_jax.runs.records import encode
from mu_jax.runs.run import Run
from mu_jax.selectors.selections import sized
from mu_jax.types import UNEDITED, Row, shipped

USAGE = "mu compare RUN... [--json] [--markdown FILE] [--force]"


Asked = list[tuple[str, str]]
"""The facts of every split by their ids, in order."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but seeds: what they are called, and their rows."""

    name: str
    runs: list[Run]
    table: Table

    @functools.cached_property
    def asked(self) -> list[Asked]:
        """What the models of each run were asked."""
        return [_asked(run) for run in self.runs]


def compare(paths: Sequence[Path], console: Console) -> list[Grid]:
    """Prints the runs' tables, and returns them.

    Raises:
      UserError: what is no run, or one without evaluations.
    """
    groups = list(_groups(paths, console))
    grids = [_lines(groups)]
    if pairs := in_pairs(list(_pairs(groups))):
        grids.append(pairs)
    for grid in grids:
        terminal.show(grid, console)
    return grids


def main(args: list[str], console: Console) -> None:
    """Runs the command; see USAGE."""
    distributed.alone()
    parser = Parser("compare", USAGE, __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run directories")
    parser.add_argument("--json", action="store_true", help="to standard output")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there too")
    parser.add_argument("--force", action="store_true", help="replace that file")
    said = parser.parse_args(args)
    if said.json:
        console.mute()
    runs = [inputs.local(run, "the run") for run in said.runs]
    target = inputs.local(said.markdown or "", "--markdown")
    if said.markdown and target.exists() and not said.force:
        raise UserError(
            f"{target} is there", "a new file", "give another one, or --force"
        )
    grids = compare(runs, console)
    if said.json:
        print(json.dumps([grid.record() for grid in grids], indent=1))
    if said.markdown:
        text = "\n".join(grid.markdown() for grid in grids)
        RunDir(target.absolute().parent).write_text(target.name, text)


def _groups(paths: Sequence[Path], console: Console) -> Iterator[Group]:
    """The runs, those together that are the same but for seeds."""
    found: dict[str, list[Run]] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        if not path.is_dir():
            raise UserError(
                f"no run directory {path}", "what `mu run` made", "check the spelling"
            )
        config = loading.read(path / "config.json")
        run = Run(config, RunDir(path), console)
        run.need("facts")
        same = json.dumps([_unseeded(encode(config)), run.inputs()], sort_keys=True)
        found.setdefault(same, []).append(run)
    names = [runs[0].dir.path.name for runs in found.values()]
    for name, runs in zip(names, found.values(), strict=True):
        title = name if names.count(name) == 1 else str(runs[0].dir.path)
        runs, rows = _distinct(runs, console)
        if len(runs) > 1:
            title += f" and {len(runs) - 1} more"
        yield Group(title, runs, Table(rows))


def _distinct(runs: Sequence[Run], console: Console) -> tuple[list[Run], list[Row]]:
    """Their rows, what was measured of the same edit counted once; the runs with any.

    Two runs may be one, copied or made on other machines, and what a seed does not
    touch is the same in all: neither is a second sample. Only what an attack makes of
    the unedited model is kept for every run, as the ceiling of each.
    """
    rows, kept, seen = [], [], {}
    asked = [_asked(run) for run in runs]
    for number, run in enumerate(runs):
        made = {
            (artefact, run.dir.stamped(artefact)): own for artefact, own in _rows(run)
        }
        new = [key for key in made if key not in seen]
        if not new:
            first = seen[next(iter(made))].dir.path
            console.say(f"{run.dir.path} is {first} once more, and not counted again")
            continue
        kept.append(run)
        for key, own in made.items():
            ceiling = key[0].startswith("attacks/") and key[0].endswith(f"/{UNEDITED}")
            if seen.setdefault(key, run) is run or ceiling:
                rows += [
                    dataclasses.replace(row, seed=1000 * number + row.seed)
                    for row in pooled(own, asked.index(asked[number]))
                ]
    return kept, rows


def pooled(rows: Sequence[Row], draw: int) -> Iterator[Row]:
    """The rows with names for their facts: those of two draws of facts are others.

    What stands in both counts twice, as if it were two: each set of facts is forgotten
    by a model of its own, and so is a cluster.
    """
    for row in rows:
        if row.split == "test" or row.eval == "text":  # documents, the same in all
            yield row
        else:
            names = row.facts or tuple(map(str, range(row.n)))
            yield dataclasses.replace(row, facts=tuple(f"{draw}/{n}" for n in names))


def _asked(run: Run) -> Asked:
    return [(k.split, k.fact.id) for k in run.dir.read_facts().known]


def _rows(run: Run) -> list[tuple[str, list[Row]]]:
    """What was measured of a run with the settings it now has, by artefact."""
    found = run.measured()
    if any(found.values()):
        return list(found.items())
    path = run.dir.path
    raise UserError(f"{path} has no evaluations", "some", f"run: mu evaluate {path}")


def _unseeded(value: Any) -> Any:
    """A config without its name, its seeds, and what changes no number."""
    if isinstance(value, dict):
        left_out = ("name", "seed", "seeds", "mesh", "save_every")
        kept = {k: v for k, v in value.items() if k not in left_out}
        return {
            k: _unseeded(v)
            for k, v in kept.items()
            if not k.endswith(("_seed", "_seeds"))
        }
    return [_unseeded(v) for v in value] if isinstance(value, list) else value


def _lines(groups: Sequence[Group]) -> Grid:
    """A line a group and model."""
    every = Table([row for group in groups for row in group.table.rows])
    wanted, names = [*measures(every), depth(every)], attacks.names(every)
    lines: list[tuple[Entry, ...]] = []
    for group in groups:
        draws = len({tuple(asked) for asked in group.asked})
        facts = str(sum(split == "forget" for split, _ in group.asked[0]))
        facts += f" x {draws} draws" if draws > 1 else ""
        for model in group.table.models:
            after = [Attacked(group.table, name, model) for name in names]
            lines.append(
                (
                    f"{group.name}: {model}",
                    facts,
                    _edited(group.runs, model),
                    *(group.table.estimates(model, what) for what in wanted),
                    *(one.worst_estimates() for one in after),
                )
            )
    header = [
        *("model", "facts", "edited"),
        *(what.title for what in wanted),
        *(f"after {name}" for name in names),
    ]
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    return Grid(
        "Runs compared",
        "facts: how many are forgotten, in how many draws of them. After an attack: the"
        " probability, over the options, that the true answer is back, at the attack's"
        " worst point (for each half of the facts, chosen on the other half). A dash:"
        f" not measured, or not attacked. {INTERVALS}",
        tuple(header[i] for i in kept),
        tuple(tuple(line[i] for i in kept) for line in lines),
    )


def _edited(runs: Sequence[Run], model: str) -> str:
    """What was edited, in the first of the runs; in how many others something else."""
    model = model.removesuffix(shipped("", "bfloat16"))
    file = f"edits/{model}/selection.json"
    if model == UNEDITED or not all(run.dir.exists(file) for run in runs):
        return "-"
    first, *others = [run.dir.read_edited(model) for run in runs]
    other = sum(chosen.tensors != first.tensors for chosen in others)
    more = f" ({other} of {len(runs)} runs: others)" if other else ""
    return f"{sized(first)}{more}"


def _pairs(groups: Sequence[Group]) -> Iterator[Pair]:
    """The first edited model of all against each other one on the same facts."""
    sides = [
        (group, Side(group.table, model))
        for group in groups
        for model in group.table.models
        if model != UNEDITED
    ]
    if not sides:
        return
    first, left = sides[0]
    for group, right in sides[1:]:
        if group.asked == first.asked:
            name = f"{first.name}: {left.model} - {group.name}: {right.model}"
            yield Pair(name, left, right)
