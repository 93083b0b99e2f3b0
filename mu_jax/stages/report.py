"""The stage `report`."""

from mu_jax import distributed
from mu_jax import report as pages
from mu_jax.run import Run
from mu_jax.types import UNEDITED, Row


def report(run: Run) -> None:
    """Tables and plots in one page."""
    for name in (UNEDITED, *run.config.edited):
        run.need(f"evals/{name}", "evaluate")
    rows = run.rows()
    distributed.first(lambda: _report(run, rows))


def _report(run: Run, rows: list[Row]) -> None:
    page = pages.write(run.dir, run.config, rows)
    run.console.finish()
    pages.show(run.dir, run.config, rows, run.console)
    run.console.say(f"\n  report: {page}")
