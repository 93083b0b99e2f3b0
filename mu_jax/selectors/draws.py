"""Matrices or MLPs drawn by a seed: the control of every localization."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mu_jax.selectors.budget import Budget, Part, fill, over
from mu_jax.selectors.selections import components, cost, matrices
from mu_jax.types import Scores, Selection, Site, Sizes


@dataclasses.dataclass(frozen=True)
class Random:
    """Single matrices drawn without replacement until the budget is full.

    The paper's runs never draw the gate (`mode="paper"`).
    """

    budget: Budget = 0.2
    seed: int = 0
    mode: str = "clean"
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        paper = over(self.mode)
        labels = [k for k in sizes.tensors if not (paper and k == "mlp/gate")]
        every = [(label, i) for label in labels for i in range(sizes.layers)]
        drawn = _shuffled(every, self.seed)
        price = lambda matrix: sizes.tensors[matrix[0]]
        kept = fill(drawn, price, self.budget, sizes, over=paper)
        return matrices(kept, sizes, f"random matrices, seed {self.seed}")


@dataclasses.dataclass(frozen=True)
class RandomMLPs:
    """Whole MLPs drawn without replacement until the budget is full."""

    budget: Budget = 0.2
    seed: int = 0
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        drawn = _shuffled([Site(i, "mlp") for i in range(sizes.layers)], self.seed)
        sites = fill(drawn, lambda s: cost(s, sizes), self.budget, sizes)
        return components(sites, sizes, f"random MLPs, seed {self.seed}")


def _shuffled(every: Sequence[Part], seed: int) -> list[Part]:
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[i] for i in order]
