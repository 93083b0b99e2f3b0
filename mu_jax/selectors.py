"""Selectors: scores in, a selection of tensors out, at a stated parameter budget.

A budget is a number of parameters, or a share of the model below 1. A selection never
exceeds it (the paper's baselines, which add whole layers until they reach the budget,
may: method §1).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP
from mu_jax.types import Scores, Selection, Site, Sizes

Budget = int | float | str
"""Parameters, a share of the model, or (in a config) the name of another selection."""

TENSORS = {"attn": ATTENTION, "mlp": MLP}
"""The tensors that make up the component at a kind of site."""


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
        sites = [Site(layer, "mlp") for layer in range(first, last + 1)]
        return selection(sites, sizes, f"probe curve climbs over {first}-{last}")


@dataclasses.dataclass(frozen=True)
class Top:
    """The components with the largest |score| that fit the budget, in rank order."""

    scores: str = "attribution"
    kinds: tuple[str, ...] = ("mlp",)
    budget: Budget = 0.2

    def __call__(self, scores: Scores, sizes: Sizes) -> Selection:
        ranked = sorted(
            (site for site in scores.values if site.kind in self.kinds),
            key=lambda site: (-abs(scores.values[site]), site),
        )
        if not ranked:
            raise UserError(
                f"the scores of {scores.method!r} hold no site of {self.kinds}",
                "scores of the kinds to select",
                "localize those kinds first",
            )
        sites = fill(ranked, sizes, self.budget)
        return selection(sites, sizes, f"largest |{scores.method}|")


@dataclasses.dataclass(frozen=True)
class Random:
    """Components drawn without replacement until the budget is full."""

    kinds: tuple[str, ...] = ("mlp",)
    budget: Budget = 0.2
    seed: int = 0
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, kind) for kind in self.kinds for i in range(sizes.layers)]
        order = np.random.default_rng(self.seed).permutation(len(sites))
        drawn = fill([sites[i] for i in order], sizes, self.budget)
        return selection(drawn, sizes, f"random, seed {self.seed}")


@dataclasses.dataclass(frozen=True)
class Layers:
    """The MLPs, and attention, of layers named outright: `mlp=(13, 14)`."""

    mlp: tuple[int, ...] = ()
    attn: tuple[int, ...] = ()
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, "mlp") for i in self.mlp] + [
            Site(i, "attn") for i in self.attn
        ]
        outside = [s for s in sites if not 0 <= s.layer < sizes.layers]
        if outside:
            raise UserError(
                f"the component {outside[0]}",
                f"a layer from 0 to {sizes.layers - 1}",
                "name layers that the model has",
            )
        return selection(sites, sizes, "named layers")


@dataclasses.dataclass(frozen=True)
class LateMLPs:
    """The last MLPs that fit the budget: those that say the fact, not look it up."""

    budget: Budget = 0.2
    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        late = [Site(i, "mlp") for i in reversed(range(sizes.layers))]
        return selection(fill(late, sizes, self.budget), sizes, "last layers")


@dataclasses.dataclass(frozen=True)
class AllMLPs:
    """Every MLP; the one selection without a budget."""

    scores: str = ""

    def __call__(self, scores: Scores | None, sizes: Sizes) -> Selection:
        sites = [Site(i, "mlp") for i in range(sizes.layers)]
        return selection(sites, sizes, "every MLP")


Selector = FactLookup | Top | Random | Layers | LateMLPs | AllMLPs


def cost(site: Site, sizes: Sizes) -> int:
    """Parameters of the component at a site."""
    if site.kind not in TENSORS:
        raise UserError(
            f"the component {site}, of kind {site.kind!r}",
            f"one of {', '.join(TENSORS)}",
            "select kinds of sites that have tensors of their own",
        )
    return sum(sizes.tensors[label] for label in TENSORS[site.kind])


def fill(ranked: Iterable[Site], sizes: Sizes, budget: Budget) -> list[Site]:
    """The leading sites whose parameters together stay within the budget."""
    if isinstance(budget, str):
        raise UserError(
            f"the budget {budget!r}",
            "parameters, or a share of the model",
            "a selection's name stands for its size in a config only",
        )
    limit = budget * sizes.model if budget < 1 else budget
    chosen, spent = [], 0
    for site in ranked:
        spent += cost(site, sizes)
        if spent > limit:
            break
        chosen.append(site)
    if not chosen:
        raise UserError(
            f"a budget of {limit:,.0f} parameters",
            "room for at least one component",
            f"an MLP has {cost(Site(0, 'mlp'), sizes):,}",
        )
    return chosen


def selection(sites: Iterable[Site], sizes: Sizes, origin: str) -> Selection:
    """The selection of whole components; unnamed, `dataclasses.replace` names it.

    Raises:
      UserError: no sites.
    """
    layers: dict[str, set[int]] = {}
    for site in sites:
        for label in TENSORS[site.kind]:
            layers.setdefault(label, set()).add(site.layer)
    if not layers:
        raise UserError("a selection of nothing", "at least one component")
    tensors = tuple((k, tuple(sorted(v))) for k, v in sorted(layers.items()))
    n_params = sum(sizes.tensors[label] * len(chosen) for label, chosen in tensors)
    return Selection("", tensors, n_params, origin)


def describe(chosen: Selection, sizes: Sizes) -> str:
    """One line for people: layers, tensors, parameters, share of the model."""
    count = sum(len(layers) for _, layers in chosen.tensors)
    share = chosen.n_params / sizes.model
    return (
        f"{components(chosen)} ({count} tensors, {chosen.n_params:,} parameters,"
        f" {share:.1%} of the model; {chosen.origin})"
    )


def components(chosen: Selection) -> str:
    """The edited layers of each kind, such as "mlp 2-6"."""
    kinds = []
    for kind, labels in TENSORS.items():
        layers = sorted(
            {i for label, ls in chosen.tensors if label in labels for i in ls}
        )
        if layers:
            kinds.append(f"{kind} {_spans(layers)}")
    return ", ".join(kinds)


def _spans(layers: list[int]) -> str:
    """[2, 3, 4, 9] as "2-4, 9"."""
    groups: list[list[int]] = []
    for layer in layers:
        if groups and layer == groups[-1][-1] + 1:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)
