"""The stage `localize`."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import numpy as np

from mu_jax.report.findings import finding
from mu_jax.runs import returned
from mu_jax.runs.calls import called
from mu_jax.runs.run import Run
from mu_jax.stages.material import asked
from mu_jax.types import Fact, Prompts, Scores


def localize(run: Run) -> None:
    """Score the sites of the network."""
    run.need("facts")
    for artefact in run.todo([f"scores/{name}" for name in run.config.localizers]):
        name = artefact.partition("/")[2]
        localizer = run.config.localizers[name]
        given = _GIVEN[localizer.needs](run, localizer)
        with run.journal(artefact) as journal:
            scores = located(run, name, given, journal)
            run.dir.write_scores(name, scores)
    for name in run.config.localizers:
        run.console.say(f"  {name}: {finding(run.dir.read_scores(name))}")


def located(
    run: Run, name: str, given: tuple, journal: MutableMapping[str, Any]
) -> Scores:
    """What the localizer called `name` finds."""
    localizer = run.config.localizers[name]
    with called(f"localizers.{name}", localizer):
        made = localizer(run.model, *given, progress=run.progress, journal=journal)
    return returned.scores(made, name, run.model.sizes.layers)


def pairs(
    run: Run, localizer: Any, facts: Sequence[Fact] | None = None
) -> tuple[Prompts, Prompts]:
    """Clean and corrupt prompts of the first of `facts`, by default of all known.

    Corrupt subjects are taken from all that the model knows.
    """
    known = [k.fact for k in run.dir.read_facts().used.known]
    some = (known if facts is None else facts)[: 2 * localizer.rows]
    train, words = run.config.facts.templates[0], run.model.tokenizer
    pair = localizer.corruption(some, known, train, words)  # not of every fact
    return pair.clean, pair.corrupt


def _subjects(run: Run, localizer: Any) -> tuple[dict[str, Prompts]]:
    """Every subject whose fact is known well enough, alone and in its prompt."""
    model, source = run.model, run.config.facts
    train = source.templates[0]
    subjects = [f for f, p in run.dir.read_asked() if p >= localizer.threshold]
    alone = asked(model, [source.alone(f) for f in subjects])
    return ({"alone": alone, "train": asked(model, [train(f) for f in subjects])},)


def _text(run: Run, localizer: Any) -> tuple[np.ndarray]:
    train, _ = run.text
    return (train,)


_GIVEN: dict[str, Callable[[Run, Any], tuple]] = {
    "pairs": pairs,
    "subjects": _subjects,
    "text": _text,
}
"""What each kind of localizer is given: see `localizers.localizer`."""
