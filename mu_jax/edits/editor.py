"""What an editor is, and what it leaves behind when it is interrupted."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from mu_jax.model.model import Model
from mu_jax.model.params import Params
from mu_jax.types import Edit, Progress, Prompts, Selection, silent


class State(NamedTuple):
    """What a step changes: the trained variables (float32) and the optimiser's state.

    `edited` are the selected tensors themselves, unless the descent says otherwise.
    """

    edited: Params
    optimizer: Any


Record = dict[str, float]
"""Of one step: losses before its update (nats), gradient norm, seconds."""


class Snapshots(Protocol):
    """Where a running edit leaves its state, to be taken up after an interruption."""

    def restore(self, like: State) -> tuple[State, list[Record]] | None:
        """The newest snapshot and the records of the steps before it, if there is one.

        It lies on the devices as `like` does.
        """

    def save(self, state: State, history: list[Record]) -> None:
        """Offers the state after `len(history)` steps; keeps it if one is due."""


@runtime_checkable
class Editor(Protocol):
    """A way to edit a selection: a frozen dataclass whose fields are its settings.

    Its class may have more:

        wants_covariances = True    it is also given `covariances`, where second moments
                                    of keys are kept (`covariance.Moments`)
        wants_selections = True     it edits `parts` parts of the facts, cut as
                                    `cuts(n)` says of n; its setting `selections` is
                                    filled with one for each, by scores of that part
        remarks(network, rows)      lines that a person should read before it begins,
                                    where there are `rows` rows of general text
    """

    def __call__(
        self,
        model: Model,
        selection: Selection,
        forget: Prompts,
        keep: Prompts,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        snapshots: Snapshots | None = None,
    ) -> Edit:
        """Edits tensors of `selection`; `model` stays as it is.

        Args:
          forget: prompts whose answers are to change.
          keep: prompts whose answers are retained, as wide as `forget`.
          text: sequences of general text, BOS first.
          snapshots: taken up where one is, and offered every step.

        Returns:
          New values, in float32, of those selected tensors that it changes, and one
          record a step.
        """
        ...
