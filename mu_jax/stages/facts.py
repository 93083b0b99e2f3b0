"""The stage `facts`."""

from collections import Counter

from mu_jax.facts.groups import grouped
from mu_jax.facts.tokens import distinct, unscorable
from mu_jax.runs import returned
from mu_jax.runs.calls import called
from mu_jax.runs.run import Run


def facts(run: Run) -> None:
    """Ask the model for every fact; keep and split those it knows."""
    config = run.config
    for artefact in run.todo(["facts"]):
        source, model = config.facts, run.model
        name = type(source).__name__
        with called("facts", source):
            loaded = returned.facts(source.load(), name)
        every = distinct(loaded, model.tokenizer)
        reasons = Counter(unscorable(fact, model.tokenizer) for fact in loaded)
        for why in filter(None, reasons):
            run.console.say(f"  {reasons[why]} of {len(loaded)} facts left out: {why}")
        train = source.templates[0]
        # Answers depend on what is asked, and not on what is then kept of them.
        of = [every, train, config.known.batch]
        with run.journal(artefact, of=of) as journal:
            asked = config.known.ask(model, every, train, run.progress, journal)
            with called("facts", source):
                found = source.split(config.known.keep(asked))
            found = returned.splits(found, {fact.id for fact, _ in asked}, name)
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
    repeated = [records for records in grouped(known) if len(records) > 1]
    if repeated:
        run.console.say(
            f"  {sum(map(len, repeated))} records are of {len(repeated)} facts (one:"
            f" {known[repeated[0][0]].subject}): all of a fact stand in one split"
        )
    told = [{known[number].answer.strip(): number for number in r} for r in repeated]
    if differing := [answers for answers in told if len(answers) > 1]:
        first = differing[0]
        subject = known[next(iter(first.values()))].subject
        run.console.say(
            f"  the answers of {len(differing)} of them differ (one: {subject}:"
            f" {', '.join(first)}), and all are trained and judged on: remove the wrong"
            " ones"
        )
    run.console.say(
        f"  {len(known)} of {len(asked)} facts are known"
        f" (p > {config.known.threshold}): {classes}; splits: {splits}"
    )
