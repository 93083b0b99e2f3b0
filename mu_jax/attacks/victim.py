"""What an attacker is given: an edited model, and facts to bring back.

Half of the forgotten facts, drawn by the attacker's seed, may be taught; the other half
is scored and never trained on (Deeb & Roger 2024, arXiv 2410.08827). Every fact has a
never-knew twin (`facts.invented`): the same question about a subject that does not
exist. An attack that learns from the taught half is made once more, as a control, where
the twins stand for the facts: what comes back then was never there.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from mu_jax.errors import UserError
from mu_jax.facts.groups import grouped, ordered, taken
from mu_jax.facts.templates import Format, Single
from mu_jax.facts.tokens import prompts
from mu_jax.model.model import Model
from mu_jax.types import Fact, Facts, Prompts, Selection

HELDOUT = 16
"""At most as many retained facts say what an attack breaks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Victim:
    """An edited model under attack.

    Attributes:
      name: of the edited model.
      model, original: edited and unedited.
      selection: the tensors that the edit changed.
      facts: all that the original knows, by split.
      twins: a forgotten fact's id -> its never-knew twin.
      templates: the training prompt, then other formats to score in.
      text: sequences of general text, BOS first.
      seed: the attacker's own.
      control: whether the twins are taught and scored in place of their facts.
    """

    name: str
    model: Model
    original: Model
    selection: Selection
    facts: Facts
    twins: Mapping[str, Fact]
    templates: tuple[Format, ...]
    text: Int[np.ndarray, "rows seq"]
    seed: int = 0
    control: bool = False

    @property
    def train(self) -> Single:
        """The training prompt."""
        template = self.templates[0]
        assert callable(template)
        return template  # pyright: ignore[reportReturnType]

    @functools.cached_property
    def halves(self) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
        """The forgotten facts that may be taught, and those that are scored.

        All records of one fact are in one half.

        Raises:
          UserError: fewer than two.
        """
        forget = self.facts.forget
        order = np.random.default_rng([self.seed, len(forget)]).permutation(len(forget))
        groups = [
            [int(order[i]) for i in group]
            for group in grouped([forget[i] for i in order])
        ]
        halves = taken(groups, len(forget) // 2)
        if not all(halves):
            raise UserError(
                f"{len(groups)} forgotten facts",
                "two or more: half are taught, half are scored",
                "forget more facts",
            )
        taught, scored = (tuple(forget[i] for i in ordered(half)) for half in halves)
        return taught, scored

    @property
    def heldout(self) -> tuple[Fact, ...]:
        """Facts to be kept that an attack is scored on: the first held out, half at
        most."""
        held = self.facts.split("heldout")
        return held[: min(HELDOUT, (len(held) + 1) // 2)]

    @property
    def related(self) -> tuple[Fact, ...]:
        """Facts of the forgotten ones' kinds that the original knows, and that neither
        the edit trained on nor an attack is scored on."""
        kinds = {fact.relation for fact in self.facts.forget}
        others = self.facts.split("heldout")[len(self.heldout) :]
        return tuple(fact for fact in others if fact.relation in kinds)

    @property
    def taught(self) -> tuple[Fact, ...]:
        return self._asked(self.halves[0])

    @property
    def scored(self) -> tuple[Fact, ...]:
        return self._asked(self.halves[1])

    def _asked(self, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
        return tuple(self.twins[f.id] for f in facts) if self.control else facts

    def prompts(self, *groups: tuple[Fact, ...]) -> list[Prompts]:
        """The training prompts of each group of facts.

        As wide as those of all that is forgotten and of their twins, so that a control
        runs what the attack has compiled.
        """
        asked = (*groups, self.facts.forget, tuple(self.twins.values()))
        questions = [self.train(fact) for group in asked for fact in group]
        both = prompts(questions, self.model.tokenizer, context=self.model.spec.context)
        ends = np.cumsum([0, *map(len, groups)])
        return [both.rows(slice(a, b)) for a, b in itertools.pairwise(ends)]
