"""Selectors: scores in, a selection of tensors out, at a stated parameter budget.

A budget is a number of parameters, or a share of the model below 1. A selection never
exceeds it, and stops before the first component that would; the paper's baselines add
whole components until they have reached it, and may (`mode="paper"`, method §1).

    paper               here                                            attention too
    flu                 FactLookup() sports, PathLookup() CounterFact
    ct, ap              Top("tracing" or "attribution", kinds=BOTH)     yes
    ct_mlps, ap_mlps    Top("tracing" or "attribution")
    random              Random(): single matrices                       yes
    random_mlps         RandomMLPs()
    all_mlps            AllMLPs()
    nonlocalized        Nonlocalized()                                  yes
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from mu_jax.errors import UserError
from mu_jax.selections import Matrix, components, cost, matrices
from mu_jax.types import Scores, Selection, Site, Sizes

Budget = int | float | str
"""Parameters, a share of the model, or (in a config) the name of another selection."""

BOTH = ("attn", "mlp")
"""The kinds of components: with attention, as the paper's ct, ap and nonlocalized."""


@dataclasses.dataclass(frozen=True)
class FactLookup:
    """The MLPs over which the probe's curve climbs ("FLU", method §4.3)."""

    scores: str = "probes"

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        """Takes the range that `Probes` put into the notes of its scores."""
        try:
            first, last = (int(scores.notes[end]) for end in ("first", "last"))
        except KeyError:
            raise UserError(
                f"the scores of {scores.method!r} name no lookup range",
                "the scores of Probes",
                "select from the probes' scores",
            ) from None
        if why := scores.notes.get("flat"):
            raise UserError(
                f"no lookup range: {why}",
                "a curve that climbs",
                "give more facts that the model knows, or select by other scores",
            )
        sites = [Site(layer, "mlp") for layer in range(first, last + 1)]
        return components(sites, sizes, f"probe curve climbs over {first}-{last}")


@dataclasses.dataclass(frozen=True)
class PathLookup:
    """The MLPs that feed the extraction heads ("FLU" for CounterFact, method §4.4).

    Those with |m| over `threshold`; with a budget, the largest that fit it instead.
    """

    scores: str = "paths"
    threshold: float = 0.02
    budget: Budget | None = None

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        ranked = [s for s in _ranked(scores, ("mlp",)) if scores.values[s]]
        if not ranked:
            raise UserError(
                "no MLP lies below the heads that write the answer",
                "an extraction head above layer 0",
                "give more facts, or select by other scores",
            )
        if self.budget is not None:
            sites = fill(ranked, lambda s: cost(s, sizes), self.budget, sizes)
            return components(sites, sizes, "MLPs that feed the extraction heads most")
        sites = [s for s in ranked if abs(scores.values[s]) > self.threshold]
        if not sites:
            largest = abs(scores.values[ranked[0]])
            raise UserError(
                f"no MLP feeds the extraction heads by more than {self.threshold}"
                f" (the largest by {largest:.3f})",
                "at least one",
                "lower the threshold, or give a budget",
            )
        why = f"MLPs that feed the extraction heads by more than {self.threshold}"
        return components(sites, sizes, why)


@dataclasses.dataclass(frozen=True)
class Top:
    """The components with the largest |score| that fit the budget, in rank order."""

    scores: str = "attribution"
    kinds: tuple[str, ...] = ("mlp",)
    budget: Budget = 0.2
    mode: str = "clean"

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        ranked = _ranked(scores, self.kinds)
        price = lambda site: cost(site, sizes)
        sites = fill(ranked, price, self.budget, sizes, over=_over(self.mode))
        return components(sites, sizes, f"largest |{scores.method}|")


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
        over = _over(self.mode)
        labels = [k for k in sizes.tensors if not (over and k == "mlp/gate")]
        every = [(label, i) for label in labels for i in range(sizes.layers)]
        drawn = _shuffled(every, self.seed)
        price = lambda matrix: sizes.tensors[matrix[0]]
        kept = fill(drawn, price, self.budget, sizes, over=over)
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


Selector = (
    FactLookup
    | PathLookup
    | Top
    | Random
    | RandomMLPs
    | Layers
    | LateMLPs
    | AllMLPs
    | Nonlocalized
)


Part = TypeVar("Part", Site, Matrix)


def fill(
    ranked: Sequence[Part],
    price: Callable[[Part], int],
    budget: Budget,
    sizes: Sizes,
    *,
    over: bool = False,
) -> list[Part]:
    """The leading parts whose parameters together stay within the budget.

    With `over`, parts are added until the budget is reached: the last may exceed it.

    Raises:
      UserError: the budget has no room for the first part, or is none.
    """
    if isinstance(budget, str):
        raise UserError(
            f"the budget {budget!r}",
            "parameters, or a share of the model",
            "a selection's name stands for its size in a config only",
        )
    if math.isnan(budget):
        raise UserError("a budget of nan", "parameters, or a share of the model")
    limit = budget * sizes.model if 0 < budget < 1 else budget
    chosen, spent = [], 0
    for part in ranked:
        if spent >= limit if over else spent + price(part) > limit:
            break
        spent += price(part)
        chosen.append(part)
    if not chosen:
        least = (
            f"{price(ranked[0]):,} parameters for the first of them, {_name(ranked[0])}"
        )
        raise UserError(
            f"a budget of {math.floor(limit):,} parameters",
            f"at least {least}",
            "raise the budget",
        )
    return chosen


def _name(part: Part) -> str:
    return str(part) if isinstance(part, Site) else f"{part[0]} of layer {part[1]}"


def _ranked(scores: Scores, kinds: tuple[str, ...]) -> list[Site]:
    """Sites of these kinds, the largest |score| first."""
    ranked = sorted(
        (site for site in scores.values if site.kind in kinds),
        key=lambda site: (-abs(scores.values[site]), site),
    )
    missing = [k for k in kinds if not any(site.kind == k for site in ranked)]
    if missing or not ranked:
        raise UserError(
            f"the scores of {scores.method!r} hold no site of kind"
            f" {', '.join(missing) or '(none)'}",
            "scores of the kinds to select",
            "localize those kinds first",
        )
    return ranked


def _shuffled(every: Sequence[Part], seed: int) -> list[Part]:
    order = np.random.default_rng(seed).permutation(len(every))
    return [every[i] for i in order]


def _over(mode: str) -> bool:
    if mode not in ("clean", "paper"):
        raise UserError(f"the mode {mode!r}", "clean or paper")
    return mode == "paper"
