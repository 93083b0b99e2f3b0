"""The stage `edit`."""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from mu_jax.checkpoints import edits
from mu_jax.edits.editor import Record
from mu_jax.runs import returned, swept
from mu_jax.runs.calls import called
from mu_jax.runs.run import Run
from mu_jax.selectors.selections import union
from mu_jax.stages.localize import located, pairs
from mu_jax.stages.material import training_prompts
from mu_jax.stages.select import selected
from mu_jax.types import Selection


def edit(run: Run) -> None:
    """Edit each selection, and make the baselines."""
    run.need("facts")
    found = run.dir.read_facts()
    names = run.chosen("--edit", run.config.edited)
    aside = found.split("tune")
    if run.config.facts.tuning:
        aside = (*found.forget, *found.split("heldout"))
    swept.check(run.config.chosen, aside, run.weights)
    for artefact in run.todo([f"edits/{name}" for name in names]):
        name = artefact.partition("/")[2]
        selection, how = _plan(run, name)
        forget, keep = training_prompts(run, found.forget, found.retain)
        text, _ = run.text
        run.dir.clear_edit(name, keep=() if run.force else ("state",))
        rest = {}
        if getattr(how, "wants_covariances", False):
            rest["covariances"] = run.covariances()
        _tell(run, name, how, len(text))
        with (
            contextlib.closing(run.snapshots(artefact)) as snapshots,
            called(f"the edit of {name}", how),
        ):
            made = how(
                run.model,
                selection,
                forget,
                keep,
                text,
                run.console.progress,
                snapshots,
                **rest,
            )
        before = run.model.selected(getattr(made, "selection", selection))
        of = f"the edit {name!r} by {type(how).__name__}"
        made = returned.edit(made, of, before)
        edits.save(run.dir.edit(name) / "params", dict(made.params))
        run.dir.write_edited(dataclasses.replace(made.selection, name=name))
        run.dir.write_lines(f"edits/{name}/history.jsonl", made.history)
        run.console.say(f"  {name}: {_summary(made.history)}")
        for term in _unmoved(made.history):
            run.console.say(
                f"  {name}: its {term} loss was the same at every step: does it depend"
                " on what the model says?"
            )


def _tell(run: Run, name: str, how: Any, rows: int) -> None:
    """What a person should know before an edit begins."""
    for choice in run.config.chosen:
        if choice.model == name:
            run.console.say(
                f"  {name}: {choice.setting} = {choice.value}, chosen on"
                f" {len(choice.facts)} facts set aside"
            )
    remarks = getattr(how, "remarks", lambda network, rows: ())
    for remark in remarks(run.model.network, rows):
        run.console.say(f"  {name}: {remark}")


def _plan(run: Run, name: str) -> tuple[Selection, Any]:
    """What is edited under this name, and how."""
    chosen, how = run.config.selection_of(name), run.config.edit_of(name)
    run.need(f"selections/{chosen}")
    selection = run.dir.read_selection(chosen)
    if getattr(how, "wants_selections", False):
        parts = _parts(run, chosen, how)
        how = dataclasses.replace(how, selections=parts)
        selection = union(parts, run.model.sizes, f"{chosen}, part by part")
    return dataclasses.replace(selection, name=name), how


def _parts(run: Run, name: str, how: Any) -> tuple[Selection, ...]:
    """Each part's own selection: by its own facts, where scores depend on facts."""
    source = run.config.selections[name].scores
    localizer = run.config.localizers[source] if source else None
    if localizer is None or localizer.needs != "pairs":
        return (run.dir.read_selection(name),) * how.parts
    forget, out = run.dir.read_facts().forget, []
    cuts = how.cuts(len(forget))
    artefacts = [f"parts/{name}/{i}of{how.parts}" for i in range(1, how.parts + 1)]
    for artefact, cut in zip(artefacts, cuts, strict=True):
        part = artefact.removeprefix("parts/").replace("/", ".")
        for _ in run.todo([artefact]):
            given = pairs(run, localizer, forget[cut])
            with run.journal(artefact) as journal:
                scores = located(run, source, given, journal)
                found = dataclasses.replace(selected(run, name, scores), name=part)
                run.dir.write_selection(found, artefact)
        out.append(run.dir.read_selection(part))
    return tuple(out)


def _unmoved(history: list[Record]) -> list[str]:
    """The terms whose loss no step has changed, where there were several steps."""
    terms = [term for term in ("forget", "retain", "text") if term in history[0]]
    some = len(history) > 2
    return [t for t in terms if some and len({record[t] for record in history}) == 1]


def _summary(history: list[Record]) -> str:
    """How the losses went over the steps, or of all facts written, in one line."""
    if "loss_after" in history[0]:
        ends = [np.mean([r[k] for r in history]) for k in ("loss", "loss_after")]
        return f"loss of the injected answers {ends[0]:.2f} -> {ends[1]:.3f}"
    first, last = history[0], history[-1]
    terms = [term for term in ("forget", "retain", "text") if term in first]
    said = (f"{t} {first[t]:.2f} -> {last[t]:.3f}" for t in terms)
    return ", ".join(said) or f"made in {len(history)} steps"
