"""The stage `evaluate`."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

from mu_jax.checkpoints import rounding
from mu_jax.errors import UserError
from mu_jax.evals import recall
from mu_jax.evals.depth import Baseline, UnlearningDepth
from mu_jax.facts.templates import Format
from mu_jax.model.model import Model
from mu_jax.runs import returned
from mu_jax.runs.calls import called
from mu_jax.runs.directory import LISTS_OF_ROWS
from mu_jax.runs.run import Run
from mu_jax.stages.material import never_knew
from mu_jax.types import UNEDITED, Fact, Facts, Row, shipped


def evaluate(run: Run) -> None:
    """Measure the unedited and every edited model."""
    run.need("facts")
    found, dtype = run.dir.read_facts(), _dtype(run)
    control = functools.cache(lambda: _control(run, found))
    names = run.chosen("--edit", run.config.edited)
    if not dtype:
        names = [UNEDITED, *names]
    folder = f"rounded/{dtype}" if dtype else "evals"
    for artefact in run.todo([f"{folder}/{name}" for name in names]):
        name, rows = artefact.rpartition("/")[2], []
        model = run.edited(name)
        if dtype:
            name, model = shipped(name, dtype), rounding.rounded(model, dtype)
        run.console.say(f"  measuring {name}")
        with run.journal(artefact, LISTS_OF_ROWS) as journal:
            for what, measure in _measurements(run, name, model, found, control):
                if what not in journal:
                    journal[what] = measure()
                rows += journal[what]
            run.dir.write_rows(artefact, rows)
            if not dtype:
                _sample(run, name, model, found)


def _dtype(run: Run) -> str:
    """In which dtype models are measured as they are shipped; empty: as they are.

    Raises:
      UserError: one that no model is shipped in, or that rounds nothing.
    """
    dtype = run.only.get("--as", "")
    if dtype not in ("", "bfloat16"):
        raise UserError(f"--as {dtype}", "--as bfloat16")
    return dtype


def _measurements(
    run: Run,
    name: str,
    model: Model,
    found: Facts,
    control: Callable[[], tuple[tuple[Fact, ...], Baseline]],
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """What is measured of a model, piece by piece: what each is, and how it is made."""
    config, train = run.config, run.config.facts.templates[0]
    formats = config.facts.templates if name == UNEDITED else telling(run)
    for template in formats:
        recalled = lambda template=template: _recalled(
            run, name, model, found, template
        )
        yield f"recall {template.name}", recalled
    yield "text", lambda: _read(run, name, model)
    why = config.probe and config.probe.refusal(found, train)
    if why:  # single facts of many kinds are no classes to tell apart
        run.console.say(f"  no probes: {why}")
    elif probe := config.probe:
        yield "probe", lambda: probe(model, name, found, train, run.progress)
    if lens := config.lens:
        yield "lens", lambda: lens(model, name, found, train, run.progress)
    for own in config.evals:
        yield f"own {own}", functools.partial(_own, run, own, name, model, found)
    if (depth := config.depth) and name != UNEDITED:
        yield "depth", lambda: _depth(run, depth, name, model, found, control)


def _own(run: Run, eval: str, name: str, model: Model, found: Facts) -> list[Row]:
    """What an evaluation of one's own measures."""
    measure, train = run.config.evals[eval], run.config.facts.templates[0]
    with called(f"evals.{eval}", measure):
        made = measure(model.copy(), name, found, train, run.progress)
    before = run.dir.read_rows(f"evals/{UNEDITED}") if name != UNEDITED else []
    return returned.measurements(made, f"evals.{eval}", before, eval=eval, model=name)


def _recalled(
    run: Run, name: str, model: Model, found: Facts, template: Format
) -> list[Row]:
    """What it answers in a format, and where that tells nothing, why."""
    how, formats = run.config.recall, [template]
    measured = how(model, found, formats, run.progress)
    notes = how.notes(measured, found, formats) if name == UNEDITED else {}
    return recall.rows(name, measured, notes)


def _depth(
    run: Run,
    depth: UnlearningDepth,
    name: str,
    model: Model,
    found: Facts,
    control: Callable[[], tuple[tuple[Fact, ...], Baseline]],
) -> list[Row]:
    """How deep the forgetting goes."""
    twins, baseline = control()
    train = run.config.facts.templates[0]
    return depth(model, name, run.model, found, train, twins, run.progress, baseline)


def telling(run: Run) -> list[Format]:
    """The formats in which the unedited model answers better than a constant would."""
    run.need(f"evals/{UNEDITED}")
    before = run.dir.read_rows(f"evals/{UNEDITED}")
    told = {r.prompt for r in before if r.eval == "recall" and not r.note}
    return [t for t in run.config.facts.templates if t.name in told]


def _read(run: Run, name: str, model: Model) -> list[Row]:
    """How it reads general text, and how far from the unedited model."""
    _, heldout = run.text
    original = None if name == UNEDITED else run.model
    return run.config.text_loss(model, name, heldout, run.progress, original)


def _control(run: Run, found: Facts) -> tuple[tuple[Fact, ...], Baseline]:
    """The twins of the forgotten facts, and what the original says in their states."""
    twins = tuple(never_knew(run, found.forget).values())
    depth, train = run.config.depth, run.config.facts.templates[0]
    assert depth  # or nobody asks
    return twins, depth.baseline(run.model, found, train, twins, run.progress)


def _sample(run: Run, name: str, model: Model, found: Facts) -> None:
    """A few answers in its own words, to read."""
    how, formats = run.config.samples, run.config.facts.templates
    said = how(model, name, found, formats) if how else ()
    run.dir.write_samples(name, list(map(dataclasses.asdict, said)))
