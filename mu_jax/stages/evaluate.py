"""The stage `evaluate`."""

import dataclasses
import functools
from collections.abc import Callable

from mu_jax.evals import recall
from mu_jax.evals.depth import Baseline
from mu_jax.facts.templates import Format
from mu_jax.model.model import Model
from mu_jax.run import Run
from mu_jax.stages.material import never_knew
from mu_jax.types import UNEDITED, Fact, Facts, Row


def evaluate(run: Run) -> None:
    """Measure the unedited and every edited model."""
    run.need("facts", "facts")
    found = run.dir.read_facts()
    control = functools.cache(lambda: _control(run, found))
    for artefact in run.todo([f"evals/{n}" for n in (UNEDITED, *run.config.edited)]):
        name = artefact.partition("/")[2]
        run.console.say(f"  measuring {name}")
        model = run.edited(name)
        rows = [
            *_recalled(run, name, model, found),
            *_read(run, name, model),
            *_latent(run, name, model, found, control),
        ]
        run.dir.write_rows(artefact, rows)
        _sample(run, name, model, found)


def _recalled(run: Run, name: str, model: Model, found: Facts) -> list[Row]:
    """What it answers, in every format in which the unedited model can."""
    templates, how = run.config.facts.templates, run.config.recall
    if name == UNEDITED:
        measured = how(model, found, templates, run.progress)
        notes = how.notes(measured, found, templates)
        return recall.rows(name, measured, notes)
    return recall.rows(name, how(model, found, telling(run), run.progress), {})


def telling(run: Run) -> list[Format]:
    """The formats in which the unedited model answers better than a constant would."""
    run.need(f"evals/{UNEDITED}", "evaluate")
    before = run.dir.read_rows(f"evals/{UNEDITED}")
    told = {r.prompt for r in before if r.eval == "recall" and not r.note}
    return [t for t in run.config.facts.templates if t.name in told]


def _read(run: Run, name: str, model: Model) -> list[Row]:
    """How it reads general text, and how far from the unedited model."""
    _, heldout = run.config.text.load(model.tokenizer)
    original = None if name == UNEDITED else run.model
    return run.config.text_loss(model, name, heldout, run.progress, original)


def _latent(
    run: Run,
    name: str,
    model: Model,
    found: Facts,
    control: Callable[[], tuple[tuple[Fact, ...], Baseline]],
) -> list[Row]:
    """What can still be read off its inside."""
    config, train = run.config, run.config.facts.templates[0]
    rows = []
    why = config.probe and config.probe.refusal(found, train)
    if why:  # single facts of many kinds are no classes to tell apart
        run.console.say(f"  no probes: {why}")
    elif config.probe:
        rows += config.probe(model, name, found, train, run.progress)
    if config.lens:
        rows += config.lens(model, name, found, train, run.progress)
    if config.depth and name != UNEDITED:
        twins, baseline = control()
        rows += config.depth(
            model, name, run.model, found, train, twins, run.progress, baseline
        )
    return rows


def _control(run: Run, found: Facts) -> tuple[tuple[Fact, ...], Baseline]:
    """The twins of the forgotten facts, and what the original says in their states."""
    twins = tuple(never_knew(run, found.forget).values())
    depth, train = run.config.depth, run.config.facts.templates[0]
    assert depth  # or nobody asks
    return twins, depth.baseline(run.model, found, train, twins, run.progress)


def _sample(run: Run, name: str, model: Model, found: Facts) -> None:
    """A few answers in its own words, to read."""
    how, formats = run.config.samples, run.config.facts.templates
    made = how(model, name, found, formats) if how else ()
    run.dir.write_samples(name, map(dataclasses.asdict, made))
