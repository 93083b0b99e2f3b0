"""The stage `select`."""

import dataclasses

from mu_jax.errors import UserError
from mu_jax.runs.run import Run
from mu_jax.selectors.selections import describe, matrices
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
    found = selector(scores or Scores("", {}), sizes)
    try:
        parts = [(label, int(i)) for label, layers in found.tensors for i in layers]
        if outside := [i for _, i in parts if not 0 <= i < sizes.layers]:
            raise ValueError(f"layer {outside[0]} of {sizes.layers}")
        made = matrices(parts, sizes, found.origin)
    except UserError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(
            f"the selection {name!r} by {type(selector).__name__} ({error!r})",
            "a Selection of tensors that the model has",
            "see mu_jax.selectors.selections",
        ) from None
    return dataclasses.replace(made, name=name)
