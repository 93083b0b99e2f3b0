"""The pipeline: each stage reads files, calls the library, writes files.

    facts     ask the model for every fact; keep and split those it knows
    localize  score the sites of the network
    select    turn scores into selections of equal size
    edit      fine-tune each selection
    evaluate  measure the unedited and every edited model
    report    tables and plots in one page
    run       all of the above, as far as it is not up to date

Which of a stage's artefacts are up to date is for `Run` to say.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable

from mu_jax import distributed, report
from mu_jax.checkpoints import edits
from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.config import Contrasting
from mu_jax.evals import recall
from mu_jax.facts.tokens import distinct, prompts
from mu_jax.journal import Journal
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.model.model import Model
from mu_jax.report.findings import finding
from mu_jax.run import Run
from mu_jax.selections import describe
from mu_jax.types import UNEDITED, Edit, Facts, Prompts, Row, Scores

# ---- stages, in order


def facts(run: Run) -> None:
    """Ask the model for every fact; keep and split those it knows."""
    config = run.config
    for _ in run.todo(["facts"]):
        source = config.facts
        model = run.model
        loaded = source.load()
        every = distinct(loaded, model.tokenizer)
        if len(every) < len(loaded):
            run.console.say(
                f"  {len(loaded) - len(every)} of {len(loaded)} facts left out: both"
                " answers begin with the same token"
            )
        asked = config.known.ask(model, every, source.templates[0], run.progress)
        found = source.split(config.known.keep(asked))
        run.dir.write_asked(asked)
        run.dir.write_facts(found)
    found = run.dir.read_facts()
    asked = [fact for fact, _ in run.dir.read_asked()]
    known = [k.fact for k in found.known]
    by_relation = len({f.relation for f in asked}) > 1
    group = lambda fact: fact.relation if by_relation else fact.answer.strip()
    counts = Counter(map(group, known))
    classes = ", ".join(
        f"{counts[name]} of {total} {name}"
        for name, total in sorted(Counter(map(group, asked)).items())
    )
    splits = ", ".join(f"{len(found.split(s))} {s}" for s in found.splits)
    run.console.say(
        f"  {len(known)} of {len(asked)} facts are known"
        f" (p > {config.known.threshold}): {classes}; splits: {splits}"
    )


def localize(run: Run) -> None:
    """Score the sites of the network."""
    run.need("facts", "facts")
    for artefact in run.todo([f"scores/{name}" for name in run.config.localizers]):
        name = artefact.partition("/")[2]
        localizer = run.config.localizers[name]
        journal = run.dir.journal(name, run.fingerprint(artefact))
        if run.force:
            journal.clear()
        if isinstance(localizer, Probes):
            scores = _probed(run, localizer)
        else:
            scores = _contrasted(run, localizer, journal)
        run.dir.write_scores(name, scores)
        journal.finish()
    for name in run.config.localizers:
        run.console.say(f"  {name}: {finding(run.dir.read_scores(name))}")


def select(run: Run) -> None:
    """Turn scores into selections of equal size."""
    sizes = run.model.sizes
    artefacts = [f"selections/{name}" for name in run.config.selections]
    for artefact in run.todo(artefacts):
        name = artefact.partition("/")[2]
        selector = run.config.selections[name]
        budget = getattr(selector, "budget", None)
        if isinstance(budget, str):
            run.need(f"selections/{budget}", "select")
            size = run.dir.read_selection(budget).n_params
            selector = dataclasses.replace(selector, budget=size)
        scores = Scores("", {})
        if selector.scores:
            run.need(f"scores/{selector.scores}", "localize")
            scores = run.dir.read_scores(selector.scores)
        chosen = dataclasses.replace(selector(scores, sizes), name=name)
        run.dir.write_selection(chosen)
    for name in run.config.selections:
        line = describe(run.dir.read_selection(name), sizes)
        run.console.say(f"  {name}: {line}")


def edit(run: Run) -> None:
    """Fine-tune each selection."""
    run.need("facts", "facts")
    found, train = run.dir.read_facts(), run.config.facts.templates[0]
    for artefact in run.todo([f"edits/{name}" for name in run.config.selections]):
        name = artefact.partition("/")[2]
        run.need(f"selections/{name}", "select")
        model, selection = run.model, run.dir.read_selection(name)
        forget, keep = _training_prompts(model, found, train)
        text, _ = run.config.text.load(model.tokenizer)
        run.dir.remove(artefact, keep=() if run.force else ("state",))
        with contextlib.closing(_snapshots(run, artefact)) as snapshots:
            how = run.config.edit_of(name)
            made = how(
                model, selection, forget, keep, text, run.console.progress, snapshots
            )
        edits.save(run.dir.edit(name) / "params", dict(made.params))
        run.dir.write_lines(f"edits/{name}/history.jsonl", made.history)
        first, last = made.history[0], made.history[-1]
        run.console.say(
            f"  {name}: forget loss {first['forget']:.2f} -> {last['forget']:.3f},"
            f" retain {first['retain']:.2f} -> {last['retain']:.3f},"
            f" text {first['text']:.2f} -> {last['text']:.2f}"
        )


def evaluate(run: Run) -> None:
    """Measure the unedited and every edited model."""
    run.need("facts", "facts")
    found, templates = run.dir.read_facts(), run.config.facts.templates
    kept: dict[str, list[Row]] = {}
    for row in run.dir.read_rows() if run.dir.exists("evals.jsonl") else []:
        kept.setdefault(row.model, []).append(row)
    names = [UNEDITED, *run.config.selections]
    for artefact in run.todo([f"evals/{name}" for name in names]):
        name = artefact.partition("/")[2]
        run.console.say(f"  measuring {name}")
        model = run.model if name == UNEDITED else _edited(run, name)
        if name == UNEDITED:
            measured = run.config.recall(model, found, templates, run.progress)
            notes = run.config.recall.notes(measured, found, templates)
        else:
            notes = {r.prompt: r.note for r in kept.get(UNEDITED, []) if r.note}
            telling = [t for t in templates if t.name not in notes]
            measured = run.config.recall(model, found, telling, run.progress)
        _, heldout = run.config.text.load(model.tokenizer)
        rows = recall.rows(name, measured, notes)
        rows += run.config.text_loss(model, name, heldout, run.progress)
        kept[name] = rows
        run.dir.write_rows(row for n in names for row in kept.get(n, []))


def report_(run: Run) -> None:
    """Tables and plots in one page."""
    for name in (UNEDITED, *run.config.selections):
        run.need(f"evals/{name}", "evaluate")
    distributed.first(lambda: _report(run))


STAGES: dict[str, Callable[[Run], None]] = {
    "facts": facts,
    "localize": localize,
    "select": select,
    "edit": edit,
    "evaluate": evaluate,
    "report": report_,
}


def start(run: Run, stage: str) -> None:
    """Runs one stage, or all of them for `run`."""
    names = list(STAGES) if stage == "run" else [stage]
    for number, name in enumerate(names, 1):
        doc = STAGES[name].__doc__ or ""
        run.console.stage(number, len(names), name, doc.splitlines()[0])
        STAGES[name](run)
    run.console.finish()


# ---- helpers


def _probed(run: Run, probes: Probes) -> Scores:
    """Probes over every subject whose fact is known well enough for them."""
    model, source = run.model, run.config.facts
    train = source.templates[0]
    subjects = [f for f, p in run.dir.read_asked() if p >= probes.threshold]
    asked = {
        "alone": _prompts(model, [source.alone(f) for f in subjects]),
        "train": _prompts(model, [train(f) for f in subjects]),
    }
    return probes(model, asked, run.progress)


def _contrasted(run: Run, localizer: Contrasting, journal: Journal) -> Scores:
    """A localizer that compares clean with corrupt prompts, over the known facts."""
    model, train = run.model, run.config.facts.templates[0]
    found = run.dir.read_facts().known
    known = [k.fact for k in found if k.split != "reserved"]
    some = known[: 2 * localizer.rows]  # not every fact has a corrupt subject
    pair = localizer.corruption(some, known, train, model.tokenizer)
    if isinstance(localizer, CausalTracing | PathPatching):
        return localizer(model, pair.clean, pair.corrupt, run.progress, journal)
    return localizer(model, pair.clean, pair.corrupt, run.progress)


def _report(run: Run) -> None:
    page = report.write(run.dir, run.config)
    run.console.finish()
    report.show(run.dir, run.config, run.console)
    run.console.say(f"\n  report: {page}")


def _prompts(model: Model, questions) -> Prompts:
    return prompts(questions, model.tokenizer, context=model.spec.context)


def _training_prompts(model: Model, found: Facts, train) -> tuple[Prompts, Prompts]:
    """The forget and retain prompts, equally wide."""
    questions = [train(f) for f in (*found.forget, *found.retain)]
    both = _prompts(model, questions)
    n = len(found.forget)
    return both.rows(slice(n)), both.rows(slice(n, None))


def _snapshots(run: Run, artefact: str) -> SnapshotFolder:
    """Where an edit goes on if it is interrupted."""
    return SnapshotFolder(
        run.dir.edit(artefact.partition("/")[2]) / "state",
        run.fingerprint(artefact),
        run.config.save_every,
        run.preemption,
        run.console.say,
    )


def _edited(run: Run, name: str) -> Model:
    run.need(f"edits/{name}", "edit")
    model, selection = run.model, run.dir.read_selection(name)
    params = edits.restore(
        run.dir.edit(name) / "params", selection, model.spec, model.network.layout
    )
    return model.update(Edit(selection, params, []))
