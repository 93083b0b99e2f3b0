"""Mask curves: how many weights does forgetting need gone? (method §5)

A mask is learned over a selection (`edits.mask`), then its N smallest entries are set
to zero and the model is asked, for several N. Fewer weights for the same forgetting,
with the rest kept, say that the selection holds the facts and little else. The control
takes as many weights of the same tensors at random.

Rows are those of `recall`, with eval "mask" and at "size=N" or "random=N".
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mu_jax.edits.editor import Snapshots
from mu_jax.edits.mask import WeightMask, scattered, zeroed
from mu_jax.errors import UserError
from mu_jax.evals import recall
from mu_jax.evals.recall import Recall
from mu_jax.facts.templates import Format
from mu_jax.model.model import Model
from mu_jax.types import Facts, Progress, Prompts, Row, Selection, silent


@dataclasses.dataclass(frozen=True)
class MaskCurve:
    """What is forgotten and what is kept as more weights go.

    Attributes:
      learn: how the mask is learned.
      shares: of the selection's parameters, how many go.
      limit: facts of each split that are asked.
      seed: of the random control.
    """

    learn: WeightMask = WeightMask(steps=20)
    shares: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    limit: int = 16
    seed: int = 0

    def __post_init__(self):
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise UserError(f"mask.shares = {self.shares}", "shares above 0, up to 1")

    def __call__(
        self,
        model: Model,
        selection: Selection,
        facts: Facts,
        templates: Sequence[Format],
        forget: Prompts,
        keep: Prompts,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        snapshots: Snapshots | None = None,
    ) -> list[Row]:
        """Learns the mask of a selection, and measures its curve and the control's."""
        data = (forget, keep, text)
        learned = self.learn(model, selection, *data, progress, snapshots)
        ask, rows = Recall(limit=self.limit), []
        for share in self.shares:
            count = max(1, round(share * selection.n_params))
            for kind, edit in (
                ("size", zeroed(model.params, learned, count)),
                ("random", scattered(model.params, selection, count, self.seed)),
            ):
                measured = ask(model.update(edit), facts, templates, progress)
                at = f"{kind}={count}"
                rows += recall.rows(selection.name, measured, {}, eval="mask", at=at)
        return rows
