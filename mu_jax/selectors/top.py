"""The components that some scores rank highest."""

import dataclasses

from mu_jax.selectors.budget import Budget, fill, over, ranking
from mu_jax.selectors.selections import components, cost
from mu_jax.types import Scores, Selection, Sizes


@dataclasses.dataclass(frozen=True)
class Top:
    """The components with the largest |score| that fit the budget, in rank order."""

    scores: str = "attribution"
    kinds: tuple[str, ...] = ("mlp",)
    budget: Budget = 0.2
    mode: str = "clean"

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        ranked = ranking(scores, self.kinds)
        price = lambda site: cost(site, sizes)
        sites = fill(ranked, price, self.budget, sizes, over=over(self.mode))
        return components(sites, sizes, f"largest |{scores.method}|")
