"""What evaluations of one's own measured."""

from mu_jax.evals import ANALYSES, EVALS
from mu_jax.report import attacks
from mu_jax.report.grid import Grid
from mu_jax.report.tables import INTERVALS, Measure, Table, columns


def measured(table: Table) -> Grid | None:
    """A line a model, a column for each thing measured; None where nothing was."""
    known = {*EVALS, *ANALYSES, *attacks.names(table)}
    found = [row for row in table.rows if row.eval not in known]
    where = dict.fromkeys((r.eval, r.split, r.prompt, r.metric, r.at) for r in found)
    wanted = [Measure(_title(*at), *at) for at in where]
    title = "Measured besides"
    return columns(table, title, f"By evaluations of one's own. {INTERVALS}", wanted)


def _title(name: str, split: str, prompt: str, metric: str, at: str) -> str:
    return f"{name}: {metric} ({', '.join(filter(None, (split, prompt, at)))})"
