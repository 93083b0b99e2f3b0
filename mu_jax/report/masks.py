"""Weight masks: how few weights carry an edit."""

from mu_jax.report.grid import Entry, Grid
from mu_jax.report.tables import (
    INTERVALS,
    NEIGHBOURS,
    Measure,
    Table,
    coordinates,
    number,
)

NAME = "mask"


def sizes(table: Table, model: str) -> list[tuple[float, str]]:
    """(how many weights are masked, where that stands in `at`), ascending."""
    found = {r.at for r in table.of(NAME) if r.model == model}
    pairs = ((number(coordinates(at).get("size", "")), at) for at in found)
    return sorted((size, at) for size, at in pairs if size is not None)


def measures(table: Table, at: str = "") -> list[Measure]:
    """What is forgotten and kept, in every format that masks were measured in."""
    prompts = dict.fromkeys(r.prompt for r in table.of(NAME))
    columns = [
        *((f"true answer: {p}", "forget", p, "choice_p_true") for p in prompts),
        *((f"held-out: {p}", "heldout", p, "choice_p_true") for p in prompts),
    ]
    return [
        Measure(title, NAME, split, prompt, metric, at)
        for title, split, prompt, metric in columns
        if prompt != NEIGHBOURS
    ]


def curves(table: Table) -> Grid | None:
    """A line a model and size; None where nothing was masked."""
    lines: list[tuple[Entry, ...]] = []
    for model in table.models:
        for size, at in sizes(table, model):
            found = [table.estimates(model, what) for what in measures(table, at)]
            lines.append((model, f"{size:g}", *found))
    header = ("model", "size", *(what.title for what in measures(table)))
    kept = [i for i in range(len(header)) if any(line[i] for line in lines)]
    if not lines:
        return None
    return Grid(
        "Weight masks",
        "Probability of the true answer over the options, once the weights that a mask"
        " ranks first are zero; size: how many of them (forgotten, lower, with fewer"
        f" weights gone and the held-out facts kept: better localized). {INTERVALS}",
        tuple(header[i] for i in kept),
        tuple(tuple(line[i] for i in kept) for line in lines),
    )
