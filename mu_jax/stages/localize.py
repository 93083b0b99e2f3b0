"""The stage `localize`."""

from collections.abc import Sequence

from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.report.findings import finding
from mu_jax.runs.config import Contrasting
from mu_jax.runs.journal import Journal
from mu_jax.runs.run import Run
from mu_jax.stages.material import asked
from mu_jax.types import Fact, Scores


def localize(run: Run) -> None:
    """Score the sites of the network."""
    run.need("facts")
    for artefact in run.todo([f"scores/{name}" for name in run.config.localizers]):
        name = artefact.partition("/")[2]
        localizer = run.config.localizers[name]
        journal = run.journal(artefact)
        if isinstance(localizer, Probes):
            scores = probed(run, localizer, journal)
        else:
            known = [k.fact for k in run.dir.read_facts().used.known]
            scores = contrasted(run, localizer, known, journal)
        run.dir.write_scores(name, scores)
        journal.finish()
    for name in run.config.localizers:
        run.console.say(f"  {name}: {finding(run.dir.read_scores(name))}")


def probed(run: Run, probes: Probes, journal: Journal) -> Scores:
    """Probes over every subject whose fact is known well enough for them."""
    model, source = run.model, run.config.facts
    train = source.templates[0]
    subjects = [f for f, p in run.dir.read_asked() if p >= probes.threshold]
    prompts = {
        "alone": asked(model, [source.alone(f) for f in subjects]),
        "train": asked(model, [train(f) for f in subjects]),
    }
    return probes(model, prompts, run.progress, journal)


def contrasted(
    run: Run, localizer: Contrasting, facts: Sequence[Fact], journal: Journal
) -> Scores:
    """A localizer that compares clean with corrupt prompts, over the first of `facts`.

    Corrupt subjects are taken from all that the model knows.
    """
    model, train = run.model, run.config.facts.templates[0]
    known = [k.fact for k in run.dir.read_facts().used.known]
    some = facts[: 2 * localizer.rows]  # not every fact has a corrupt subject
    pair = localizer.corruption(some, known, train, model.tokenizer)
    if isinstance(localizer, CausalTracing | PathPatching):
        return localizer(model, pair.clean, pair.corrupt, run.progress, journal)
    return localizer(model, pair.clean, pair.corrupt, run.progress)
