"""How much is selected: parts in rank order, as far as a budget goes."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from mu_jax.errors import UserError
from mu_jax.selectors.selections import Matrix
from mu_jax.types import Scores, Site, Sizes

Budget = int | float | str
"""Parameters, a share of the model, or (in a config) the name of another selection."""

BOTH = ("attn", "mlp")
"""The kinds of components: with attention, as the paper's ct, ap and nonlocalized."""

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


def ranking(scores: Scores, kinds: tuple[str, ...]) -> list[Site]:
    """Sites of these kinds, the largest |score| first."""
    found = sorted(
        (site for site in scores.values if site.kind in kinds),
        key=lambda site: (-abs(scores.values[site]), site),
    )
    missing = [k for k in kinds if not any(site.kind == k for site in found)]
    if missing or not found:
        raise UserError(
            f"the scores of {scores.method!r} hold no site of kind"
            f" {', '.join(missing) or '(none)'}",
            "scores of the kinds to select",
            "localize those kinds first",
        )
    return found


def over(mode: str) -> bool:
    """Whether the last part may exceed the budget, as in the paper's runs."""
    if mode not in ("clean", "paper"):
        raise UserError(f"the mode {mode!r}", "clean or paper")
    return mode == "paper"


def _name(part: Part) -> str:
    return str(part) if isinstance(part, Site) else f"{part[0]} of layer {part[1]}"
