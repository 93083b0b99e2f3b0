"""The rule that reads the fact-lookup layers off a probe's curve."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Lookup(NamedTuple):
    """Layers first to last, both included, over which the subject's curve climbs.

    `floor` and `plateau` are the accuracies between which it does. Over layers
    `extraction_first` to `extraction` the answer reaches the prompt's end. `flat` says
    why the curve is no climb and the range means nothing; empty where it is one.
    """

    first: int
    last: int
    floor: float
    plateau: float
    extraction_first: int
    extraction: int
    flat: str = ""


@dataclasses.dataclass(frozen=True)
class LookupRange:
    """First and last layer of the climb (after method §4.3).

    On the monotone envelope of the curve,

        floor    what the tokens alone give away: the accuracy on the embeddings, or
                 that of a constant answer, whichever is larger
        plateau  the mean over the last `tail` of the layers before extraction
        first    the first layer that has made `low` of the way from floor to plateau
        last     the first layer within `errors` standard errors of the plateau,
                 plus `margin`

    and on the curve at the prompt's end, which jumps where the answer is moved there,

        extraction        the first layer within `errors` standard errors of its maximum
        extraction_first  the first layer, from the last lookup layer on, that has made
                          `low` of the way from the accuracy there to that maximum

    The curve is flat where its own mean over those last layers (not the envelope's,
    which noise lifts) is not `errors` standard errors above the floor, or above what a
    probe of shuffled labels reads there.

    On the paper's three published curves, which saturate at 1.00, `margin=1` returns
    the authors' hand-picked layers exactly: 2-7, 2-6 and 1-4. The default takes no
    layer in which the curve no longer climbs.
    """

    low: float = 1 / 3
    errors: float = 2.0
    tail: float = 1 / 3
    margin: int = 0

    def __call__(
        self,
        subject: Float[np.ndarray, " layer"],
        *,
        floor: float,
        n: int,
        end: Float[np.ndarray, " layer"] | None = None,
        control: Float[np.ndarray, " layer"] | None = None,
    ) -> Lookup:
        """The range for a curve of accuracies after each layer.

        Args:
          subject: at the subject's last token.
          floor: accuracy without any layer.
          n: subjects behind each accuracy, for its standard error.
          end: the curve at the prompt's end; without it extraction is never reached.
          control: the curve of probes of shuffled labels.
        """
        climb = np.maximum.accumulate(subject)
        layers = len(climb)
        extraction = layers if end is None else self._arrival(end, n)
        stop = max(extraction, 1)
        last_ones = slice(stop - max(1, round(stop * self.tail)), stop)
        plateau = float(climb[last_ones].mean())
        first = int(np.argmax(climb >= floor + self.low * (plateau - floor)))
        reached = int(np.argmax(climb >= self._near(plateau, n)))
        last = min(max(first, reached + self.margin), layers - 1)
        jump = extraction if end is None else self._jump(end, last, extraction)
        flat = self._flat(subject, floor, n, control, last_ones)
        return Lookup(first, last, float(floor), plateau, jump, extraction, flat)

    def _flat(
        self,
        subject: Float[np.ndarray, " layer"],
        floor: float,
        n: int,
        control: Float[np.ndarray, " layer"] | None,
        last_ones: slice,
    ) -> str:
        """Why the curve is no climb; empty where it is one."""
        reached = float(subject[last_ones].mean())
        lows = {"what the tokens alone give away": float(floor)}
        if control is not None:
            shuffled = float(control[last_ones].mean())
            lows["what probes of shuffled labels read"] = shuffled
        for name, low in lows.items():
            variance = sum(p * (1 - p) / n for p in (reached, low))
            error = self.errors * np.sqrt(variance)
            if reached <= low + error:
                return (
                    f"the probe's curve ends at {reached:.2f}, {name} is {low:.2f},"
                    f" and {self.errors:g} standard errors are {error:.2f}"
                )
        return ""

    def _jump(self, end: np.ndarray, last: int, extraction: int) -> int:
        """The first layer of the end's jump."""
        climb = np.maximum.accumulate(end)
        low = climb[min(last, extraction)]
        halfway = climb >= low + self.low * (climb[-1] - low) - 1e-9
        halfway[: min(last, extraction)] = False
        return min(int(np.argmax(halfway)), extraction)

    def _near(self, accuracy: float, n: int) -> float:
        """The accuracy that is `errors` binomial standard errors lower."""
        error = np.sqrt(max(accuracy * (1 - accuracy), 0) / n)
        return accuracy - self.errors * error - 1e-9

    def _arrival(self, end: np.ndarray, n: int) -> int:
        """The first layer at which the end's curve is as high as it ever gets."""
        return int(np.argmax(end >= self._near(float(end.max()), n)))
