"""Edits in stages: the forgotten facts come in parts, one after the other.

Each part has its own steps, a fresh optimiser and schedule, and goes on from the
weights that the part before it left.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from penzai import pz

from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.step import Batch, Rate
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate
from mu_jax.types import Prompts, Selection


@dataclasses.dataclass(frozen=True)
class Staged(GradientEdit):
    """A gradient edit with `steps` steps for each of `parts` parts."""

    parts: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.parts < 1:
            raise UserError(f"edit.parts = {self.parts}", "at least 1")

    @property
    def total(self) -> int:
        return self.parts * self.steps

    def batch(self, step: int, forget: Prompts, keep: Prompts, text) -> Batch:
        """The rows of a step, of the facts that its part forgets and retains."""
        part, cuts = step // self.steps, self.cuts(len(forget.tokens))
        return super().batch(step, *self.lesson(part, cuts, forget, keep), text)

    def cuts(self, n: int) -> list[slice]:
        """Which of n forgotten rows belong to each part: consecutive, equally many.

        Raises:
          UserError: the parts do not divide them.
        """
        size, rest = divmod(n, self.parts)
        if rest or not size:
            raise UserError(
                f"{n} forgotten facts in {self.parts} parts",
                "parts of equal size",
                "set facts.forget to a multiple of the parts",
            )
        return [slice(i * size, (i + 1) * size) for i in range(self.parts)]

    def lesson(
        self, part: int, cuts: list[slice], forget: Prompts, keep: Prompts
    ) -> tuple[Prompts, Prompts]:
        """What a part forgets, and what it retains."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Layered(Staged):
    """Layered Unlearning (Qian et al. 2025, arXiv 2505.09500), over any loss.

    Stage i forgets parts 1 to i and retains the later ones, so that different parts are
    forgotten in different ways, and relearning one does not bring back another.
    """

    def lesson(self, part, cuts, forget, keep):
        rest = forget.rows(slice(cuts[part].stop, None))
        return forget.rows(slice(cuts[part].stop)), concatenate([keep, rest])


@dataclasses.dataclass(frozen=True)
class Sequential(Staged):
    """Facts edited part by part, without replay, as in the paper (method §2).

    Attributes:
      selections: what each part may change, if it has a localization of its own; their
        union is the selection that the edit is called with.
    """

    steps: int = 25
    selections: tuple[Selection, ...] = ()

    wants_selections: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.selections and len(self.selections) != self.parts:
            raise UserError(
                f"{len(self.selections)} selections for {self.parts} parts",
                "one for each part",
            )

    @property
    def program(self):
        return dataclasses.replace(super().program, selections=())

    def lesson(self, part, cuts, forget, keep):
        return forget.rows(cuts[part]), keep

    def rate(self, step: int, selection: Selection) -> Rate:
        """One for all, or 0 where the part's own selection has no tensor."""
        rate: Any = super().rate(step, selection)
        if not self.selections:
            return rate
        chosen = dict(self.selections[step // self.steps].tensors)
        return {
            label: pz.nx.wrap(
                np.array([rate * (i in chosen.get(label, ())) for i in layers])
            ).tag("layer")
            for label, layers in selection.tensors
        }
