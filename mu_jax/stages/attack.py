"""The stage `attack`."""

import dataclasses
import functools

import numpy as np

from mu_jax.attacks.attack import Attack
from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.runs import returned
from mu_jax.runs.calls import Failed, called
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
            kind
            for kind in attacks
            if name != UNEDITED or run.config.attacks[kind].needs != "edit"
        ]
        artefacts = [f"attacks/{kind}/{name}" for kind in kinds]
        for artefact in run.todo(artefacts, shared=name == UNEDITED):
            kind = artefact.split("/")[1]
            run.console.say(f"  {kind} on {name}")
            of = attacked()
            with run.journal(artefact) as journal:
                try:
                    rows = _attack(run, kind, of, journal)
                except Failed:
                    raise
                except UserError as error:
                    if "--attack" in run.only:
                        raise
                    # One of a set that these facts give nothing to: the others go on.
                    run.console.say(f"  left out: {error}")
                    rows = []
                else:
                    where = f"attacks.{kind}"
                    rows = returned.rows(rows, where, eval=kind, model=name)
                    _said(rows, run, f"{kind} on {name}")
                run.dir.write_rows(artefact, rows)


def _attack(run: Run, kind: str, attacked: Victim, journal: Journal) -> list[Row]:
    """The rows of one attack on one model, under every seed."""
    how, rows = run.config.attacks[kind], []
    for seed in run.config.attack_seeds:
        victim = dataclasses.replace(attacked, seed=seed)
        rows += _made(how, victim, kind, journal, run)
        if how.needs == "taught" and attacked.name != UNEDITED:
            control = dataclasses.replace(victim, control=True)
            rows += _made(how, control, kind, journal, run)
    return rows


def _made(how: Attack, of: Victim, kind: str, journal: Journal, run: Run) -> list[Row]:
    """The rows of one attack, which is given models of its own."""
    own = dataclasses.replace(of, model=of.model.copy(), original=of.original.copy())
    with called(f"attacks.{kind}", how):
        return list(how(own, kind, journal, run.progress))


def _said(rows: list[Row], run: Run, what: str) -> None:
    """Tells of rows that no table will have."""
    if broken := sum(not np.isfinite(row.values).all() for row in rows):
        run.console.say(
            f"  {what}: {broken} of {len(rows)} rows are not all numbers, and stand in"
            " no table"
        )
