"""The stage `attack`."""

import dataclasses
import functools

from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.runs import contents
from mu_jax.runs.journal import Journal
from mu_jax.runs.run import Run
from mu_jax.stages.material import victim
from mu_jax.types import UNEDITED, Row


def attack(run: Run) -> None:
    """Try to bring the forgotten facts back, of the unedited model too.

    What an attack makes of that is all that it could bring back of an edited one.
    """
    run.need("facts")
    names = run.chosen("--edit", run.config.edited)
    attacks = run.chosen("--attack", run.config.attacks)
    for name in names:
        run.need(f"edits/{name}")
    if not names or not attacks:
        raise UserError(
            "nothing to attack with" if names else "no edited model to attack",
            "an edit and an attack in the config",
            "add some to attacks" if names else "run: mu edit",
        )
    for name in (UNEDITED, *names):
        attacked = functools.cache(lambda name=name: victim(run, name))
        kinds = [
            k for k in attacks if name != UNEDITED or not run.config.attacks[k].undoes
        ]
        artefacts = [f"attacks/{kind}/{name}" for kind in kinds]
        for artefact in run.todo(artefacts, shared=name == UNEDITED):
            kind = artefact.split("/")[1]
            run.console.say(f"  {kind} on {name}")
            journal, of = run.journal(artefact), attacked()
            try:
                rows = _attack(run, kind, of, journal)
            except UserError as error:
                if "--attack" in run.only:
                    raise
                # One of a set that these facts give nothing to: the others go on.
                run.console.say(f"  {kind} is left out: {error}")
                rows = []
            else:
                where = f"attacks.{kind}"
                rows = contents.own_rows(rows, where, eval=kind, model=name)
            run.dir.write_rows(artefact, rows)
            journal.finish()


def _attack(run: Run, kind: str, attacked: Victim, journal: Journal) -> list[Row]:
    """The rows of one attack on one model, under every seed."""
    how, rows = run.config.attacks[kind], []
    for seed in run.config.attack_seeds:
        victim = dataclasses.replace(attacked, seed=seed)
        rows += how(victim, kind, journal, run.progress)
        if how.learns and attacked.name != UNEDITED:
            control = dataclasses.replace(victim, control=True)
            rows += how(control, kind, journal, run.progress)
    return rows
