"""Components named outright, late ones, or all: no scores are asked."""

import dataclasses

from mu_jax.errors import UserError
from mu_jax.selectors.budget import BOTH, Budget, fill
from mu_jax.selectors.selections import components, cost
from mu_jax.types import Scores, Selection, Site, Sizes


@dataclasses.dataclass(frozen=True)
class Layers:
    """The MLPs, and attention, of layers named outright: `mlp=range(2, 8)`."""

    mlp: tuple[int, ...] = ()
    attn: tuple[int, ...] = ()
    scores: str = ""

    def __post_init__(self):
        for kind in BOTH:  # a range, a list or a tuple
            object.__setattr__(self, kind, tuple(getattr(self, kind)))

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, kind) for kind in BOTH for i in getattr(self, kind)]
        outside = [s for s in sites if not 0 <= s.layer < sizes.layers]
        if outside:
            raise UserError(
                f"the component {outside[0]}",
                f"a layer from 0 to {sizes.layers - 1}",
                "name layers that the model has",
            )
        return components(sites, sizes, "named layers")


@dataclasses.dataclass(frozen=True)
class LateMLPs:
    """The last MLPs that fit the budget: those that say the fact, not look it up."""

    budget: Budget = 0.2
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        late = [Site(i, "mlp") for i in reversed(range(sizes.layers))]
        sites = fill(late, lambda s: cost(s, sizes), self.budget, sizes)
        return components(sites, sizes, "last layers")


@dataclasses.dataclass(frozen=True)
class AllMLPs:
    """Every MLP; without a budget."""

    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, "mlp") for i in range(sizes.layers)]
        return components(sites, sizes, "every MLP")


@dataclasses.dataclass(frozen=True)
class Nonlocalized:
    """Every matrix of every MLP and attention; without a budget."""

    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, kind) for kind in BOTH for i in range(sizes.layers)]
        return components(sites, sizes, "everything but embeddings and norms")
