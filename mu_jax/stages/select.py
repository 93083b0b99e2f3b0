"""The stage `select`."""

from mu_jax.runs import returned
from mu_jax.runs.calls import called
from mu_jax.runs.run import Run
from mu_jax.selectors.selections import describe
from mu_jax.selectors.selector import resized
from mu_jax.types import Scores, Selection


def select(run: Run) -> None:
    """Turn scores into selections of equal size."""
    for artefact in run.todo([f"selections/{name}" for name in run.config.selections]):
        name = artefact.partition("/")[2]
        source, scores = run.config.selections[name].scores, None
        if source:
            run.need(f"scores/{source}")
            scores = run.dir.read_scores(source)
        run.dir.write_selection(selected(run, name, scores))
    for name in run.config.selections:
        line = describe(run.dir.read_selection(name), run.model.sizes)
        run.console.say(f"  {name}: {line}")


def selected(run: Run, name: str, scores: Scores | None) -> Selection:
    """What the selector called `name` makes of these scores."""
    selector = run.config.selections[name]
    budget = getattr(selector, "budget", None)
    if isinstance(budget, str):
        run.need(f"selections/{budget}")
        size = run.dir.read_selection(budget).n_params
        selector = resized(selector, size)
    sizes = run.model.sizes
    with called(f"selections.{name}", selector):
        found = selector(scores or Scores("", {}), sizes)
    return returned.selection(found, name, sizes)
