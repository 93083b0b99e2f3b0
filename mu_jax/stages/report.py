"""The stage `report`."""

from mu_jax import distributed
from mu_jax import report as pages
from mu_jax.errors import UserError
from mu_jax.evals import EVALS
from mu_jax.run import Run
from mu_jax.types import UNEDITED, Row


def report(run: Run) -> None:
    """Tables and plots in one page."""
    config = run.config
    for stage, artefacts in {
        "facts": ["facts"],
        "localize": [f"scores/{name}" for name in config.localizers],
        "select": [f"selections/{name}" for name in config.selections],
        "edit": [f"edits/{name}" for name in config.edited],
        "evaluate": [f"evals/{name}" for name in (UNEDITED, *config.edited)],
    }.items():
        for artefact in artefacts:
            run.need(artefact, stage)
    rows = run.rows()
    for name in (UNEDITED, *run.config.edited):
        if not any(row.model == name and row.eval in EVALS for row in rows):
            raise UserError(
                f"no measurement of {name} in {run.dir.path}",
                "what `mu evaluate` makes",
                f"run: mu evaluate {run.dir.path} --force",
            )
    distributed.first(lambda: _report(run, rows))


def _report(run: Run, rows: list[Row]) -> None:
    page = pages.write(run.dir, run.config, rows)
    run.console.finish()
    pages.show(run.dir, run.config, rows, run.console)
    run.console.say(f"\n  report: {page}")
