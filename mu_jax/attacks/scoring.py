"""Scores of an attack: is the fact back, was it taught, is the rest still there?

Rows of an attack (`eval` is its name), in every format that the victim is asked in:

    split        the facts
    forget       forgotten facts that the attacker was not taught
    never_knew   their twins: what rises here was taught, not recovered
    heldout      retained facts: what falls here the attack has broken

    at              when
    original        the unedited model
    before          the edited model, before the attack
    (otherwise)     after the attack, where on its curve: "rate=0.0001 step=10"
    (this) twins    likewise, where the attack learned from twins in place of facts

The recovered fraction, (after - never knew) / (unedited - never knew), is a ratio of
means over facts and is made of these rows by `statistics.recovered`: 0 nothing is back
that a model which never knew would not have learned too, 1 all is. All three are under
the attack: the unedited model's is made of rows of its own, as an attack on it.
"""

import dataclasses
import itertools
from collections.abc import MutableMapping, Sequence

import numpy as np

from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.evals.recall import Ask, answers, askable
from mu_jax.facts.templates import Format
from mu_jax.model.model import Model
from mu_jax.types import Fact, Row

METRICS = ("p_true", "choice_p_true", "choice_true", "top_true", "choice_injected")
ORIGINAL, BEFORE = "original", "before"
TWINS = " twins"
"""What stands behind a point of the curve of an attack that learned from twins."""


@dataclasses.dataclass(eq=False)
class Scoring:
    """What one attack on one victim has measured so far; kept in a journal.

    Attributes:
      attack: its name.
      budget: what the attacker spends, in words.
      facts: which forgotten facts are scored.
      journal: where values are kept, so that an attack cut short goes on.
      batch: prompts a forward pass.
    """

    attack: str
    victim: Victim
    budget: str
    facts: tuple[Fact, ...]
    journal: MutableMapping[str, list[float]]
    batch: int = 32

    def __post_init__(self):
        self._seen: list[tuple[str, str]] = []
        for template in self.victim.templates:
            if not askable(self.facts, template):
                raise UserError(
                    f"the format {template.name!r} asks about none of the"
                    f" {len(self.facts)} facts to be scored",
                    "one that does",
                    "attack in other formats",
                )

    def done(self, at: str) -> bool:
        """Whether everything at this point of the curve has been measured already."""
        return all(key in self.journal for key in self._keys(at))

    def baselines(self) -> None:
        """The unedited model, and the edited one before the attack; once for all."""
        if self.victim.control:
            return
        self.measure(ORIGINAL, self.victim.original)
        self.measure(BEFORE, self.victim.model)

    def measure(
        self,
        at: str,
        model: Model,
        ask: Ask | Sequence[Ask] | None = None,
        budget: str | None = None,
    ) -> None:
        """Asks `model`, unless it was asked before.

        Args:
          ask: asked in its place; of several the values are averaged, fact by fact.
        """
        self._seen.append((at, self.budget if budget is None else budget))
        if self.done(at):
            return
        asks = ask if isinstance(ask, Sequence) else [ask]
        for template in self.victim.templates:
            groups = self._asked(template)
            facts = [fact for group in groups.values() for fact in group]
            each = [answers(model, facts, template, self.batch, ask=a) for a in asks]
            cuts = [0, *itertools.accumulate(map(len, groups.values()))]
            for metric in METRICS:
                mean = np.mean([values[metric] for values in each], axis=0)
                for split, a, b in zip(groups, cuts, cuts[1:], strict=False):
                    key = self._key(at, template.name, split, metric)
                    self.journal[key] = mean[a:b].astype(float).tolist()

    def rows(self) -> list[Row]:
        """A row for each thing measured, in order."""
        return [
            Row.of(
                np.array(self.journal[self._key(at, template.name, split, metric)]),
                share=True,
                facts=tuple(fact.id for fact in facts),
                model=self.victim.name,
                eval=self.attack,
                split=split,
                prompt=template.name,
                metric=metric,
                at=self._at(at),
                budget="" if at in (ORIGINAL, BEFORE) else budget,
                seed=self.victim.seed,
            )
            for at, budget in self._seen
            for template in self.victim.templates
            for split, facts in self._asked(template).items()
            for metric in METRICS
        ]

    def _asked(self, template: Format) -> dict[str, list[Fact]]:
        """{split: its facts that the format asks about}, where there are any."""
        groups = {k: askable(facts, template) for k, facts in self._splits().items()}
        return {split: group for split, group in groups.items() if group}

    def _at(self, at: str) -> str:
        return f"{at}{TWINS}" if self.victim.control else at

    def _splits(self) -> dict[str, tuple[Fact, ...]]:
        if self.victim.control:
            return {"never_knew": self.facts}
        return {
            "forget": self.facts,
            "never_knew": tuple(self.victim.twins[f.id] for f in self.facts),
            "heldout": self.victim.heldout,
        }

    def _keys(self, at: str) -> list[str]:
        return [
            self._key(at, template.name, split, metric)
            for template in self.victim.templates
            for split in self._asked(template)
            for metric in METRICS
        ]

    def _key(self, at: str, prompt: str, split: str, metric: str) -> str:
        return f"{self.victim.seed}/{self._at(at)}/{prompt}/{split}/{metric}"
