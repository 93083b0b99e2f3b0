"""What several stages make of the run's files: prompts, twins, victims."""

from collections.abc import Iterable, Sequence

from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.facts.invented import twins
from mu_jax.facts.tokens import prompts
from mu_jax.model.model import Model
from mu_jax.runs.run import Run
from mu_jax.types import UNEDITED, Fact, Prompts, Question, Selection


def asked(model: Model, questions: Sequence[Question]) -> Prompts:
    """Questions as prompts that fit the model."""
    return prompts(questions, model.tokenizer, context=model.spec.context)


def training_prompts(run: Run, *groups: Sequence[Fact]) -> list[Prompts]:
    """The training prompts of groups of facts, all equally wide."""
    train = run.config.facts.templates[0]
    both = asked(run.model, [train(fact) for group in groups for fact in group])
    out, start = [], 0
    for group in groups:
        out.append(both.rows(slice(start, start + len(group))))
        start += len(group)
    return out


def never_knew(run: Run, facts: Sequence[Fact]) -> dict[str, Fact]:
    """{fact id: its never-knew twin}, of words of subjects that nothing trains on."""
    pool = [fact for fact, _ in run.dir.read_asked()]
    used = [known.fact for known in run.dir.read_facts().used.known]
    made = twins(facts, pool, seed=0, trained=used)
    return {fact.id: twin for fact, twin in zip(facts, made, strict=True)}


def victim(run: Run, name: str) -> Victim:
    """The edited model called `name`, or the unedited one, as an attacker gets it."""
    facts = run.dir.read_facts()
    edited = name != UNEDITED
    text, _ = run.text
    return Victim(
        name=name,
        model=run.edited(name),
        original=run.model,
        selection=run.dir.read_edited(name) if edited else Selection(name, (), 0),
        facts=facts,
        twins=never_knew(run, facts.forget),
        templates=tuple(formats(run, run.config.attack_formats)),
        text=text,
    )


def formats(run: Run, names: Iterable[str]) -> list:
    """The training prompt, and the formats of these names.

    Raises:
      UserError: a name that is none.
    """
    train, *others = run.config.facts.templates
    known = {template.name: template for template in others}
    for name in names:
        if name != train.name and name not in known:
            raise UserError(
                f"the prompt format {name!r}",
                f"one of {', '.join((train.name, *known))}",
                "set attack_formats",
            )
    return [train, *(known[n] for n in names if n != train.name)]
