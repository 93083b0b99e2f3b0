"""The stage `report`."""

from mu_jax import distributed
from mu_jax import report as pages
from mu_jax.run import Run
from mu_jax.types import UNEDITED


def report(run: Run) -> None:
    """Tables and plots in one page."""
    for name in (UNEDITED, *run.config.edited):
        run.need(f"evals/{name}", "evaluate")
    distributed.first(lambda: _report(run))


def _report(run: Run) -> None:
    page = pages.write(run.dir, run.config)
    run.console.finish()
    pages.show(run.dir, run.config, run.console)
    run.console.say(f"\n  report: {page}")
