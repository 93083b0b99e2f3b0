"""The stage `report`."""

from mu_jax import report as pages
from mu_jax.devices import distributed
from mu_jax.errors import UserError
from mu_jax.evals import EVALS
from mu_jax.runs.run import Run
from mu_jax.types import UNEDITED, Row, shipped


def report(run: Run) -> None:
    """Tables and plots in one page."""
    config = run.config
    for artefact in (
        "facts",
        *(f"scores/{name}" for name in config.localizers),
        *(f"selections/{name}" for name in config.selections),
        f"evals/{UNEDITED}",
    ):
        run.need(artefact)
    models = run.usable({n: (f"edits/{n}", f"evals/{n}") for n in config.edited})
    barred = {*config.edited} - {*models}
    barred |= {shipped(name, "bfloat16") for name in barred}
    rows = [row for row in run.rows() if row.model not in barred]
    for name in (UNEDITED, *models):
        if not any(row.model == name and row.eval in EVALS for row in rows):
            raise UserError(
                f"no measurement of {name} in {run.dir.path}",
                "what `mu evaluate` makes",
                f"run: mu evaluate {run.dir.path} --force",
            )
    distributed.first(lambda: _report(run, rows, models))


def _report(run: Run, rows: list[Row], models: list[str]) -> None:
    page = pages.write(run.dir, run.config, rows, models)
    run.console.finish()
    pages.show(run.dir, rows, models, run.console)
    run.console.say(f"\n  report: {page}")
