"""Where a fact is looked up: by the probes' curve, or by paths to the heads."""

import dataclasses

from mu_jax.errors import UserError
from mu_jax.selectors.budget import Budget, fill, ranking
from mu_jax.selectors.selections import components, cost
from mu_jax.types import Scores, Selection, Site, Sizes


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
        ranked = [s for s in ranking(scores, ("mlp",)) if scores.values[s]]
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
