"""ROME: one fact at a time, written into one matrix by a rank-one change.

Meng, Bau, Andonian, Belinkov, "Locating and Editing Factual Associations in GPT",
arXiv 2202.05262, section 3.1.
"""

import dataclasses
import time
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from mu_jax.devices.sharding import fetch
from mu_jax.edits import down
from mu_jax.edits.covariance import Covariance, Inverse, Moments
from mu_jax.edits.editor import Snapshots, State
from mu_jax.edits.subjects import Subjects, align, check, look
from mu_jax.edits.values import Value
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.types import Edit, Progress, Prompts, Selection, silent


@dataclasses.dataclass(frozen=True)
class ROME:
    """Facts written into W, the down projection of one layer, one after the other.

    Of each fact, k is the mean over contexts of the MLP's hidden units at the subject's
    last token, and y = k W. With v* = y + delta, where delta makes the model give the
    injected answer (`Value`; through the post-norm, where there is one),

        W' = W + C^-1 k (v* - k W)^T / (k . C^-1 k)

    so that k W' = v*, and of all such changes this one alters W least on general text.
    Each fact finds the weights that the earlier ones left. Neither `keep` nor general
    text is trained on.

    Attributes:
      layer: None for the lowest one of the selection's. On the 270M (four athletes
        each) all gave the injected sport, in QA too, and of the other athletes 99 %
        kept theirs after an edit of layer 1, 91 % of layer 2, 60 % of layer 3.
      value: how v* is found.
      covariance: how C is estimated.
      contexts: beginnings of general text that the prompt is also read behind.
      context_length: tokens of each.
    """

    layer: int | None = None
    value: Value = Value()
    covariance: Covariance = Covariance()
    contexts: int = 4
    context_length: int = 8

    wants_covariances: ClassVar[bool] = True

    def __post_init__(self):
        check(self.contexts, self.context_length)

    def __call__(
        self,
        model: Model,
        selection: Selection,
        forget: Prompts,
        keep: Prompts,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        snapshots: Snapshots | None = None,
        covariances: Moments | None = None,
    ) -> Edit:
        """Edits one down projection of `selection`; `model` stays as it is.

        Args:
          forget: prompts whose foil is injected, with their subjects marked.
          keep: not used.
          text: general text, BOS first: of it C and the contexts are made.
          snapshots: taken up where one is, and offered after every fact.
          covariances: where second moments are kept between edits.

        Returns:
          The new matrix in float32, and one record a fact: the injected answer's loss
          before (nats, mean over contexts) and with v* in place, |delta| / |y|, steps
          of the optimisation, seconds.

        Raises:
          UserError: no down projection is selected, or not the one of `layer`; a prompt
            without a subject.
        """
        layer = self._layer(selection)
        chosen = down.narrowed(selection, model, (layer,))
        subjects = align(forget, text, self.contexts, self.context_length)
        state, history = State(down.wide(model.params, chosen), ()), []
        if snapshots and (found := snapshots.restore(state)):
            state, history = found
        total = len(forget.tokens)
        inverse = next(self.covariance(model, [layer], text, covariances, progress))
        progress(f"editing {selection.name}", len(history), total)
        for fact in range(len(history), total):
            began = time.perf_counter()
            state, record = self._write(model, chosen, subjects, fact, inverse, state)
            seconds = round(time.perf_counter() - began, 3)
            history.append({"step": fact, **record, "seconds": seconds})
            if snapshots:
                snapshots.save(state, history)
            progress(f"editing {selection.name}", fact + 1, total)
        return Edit(chosen, state.edited, history)

    def _layer(self, selection: Selection) -> int:
        found = down.layers(selection)
        if self.layer is None:
            return found[0]
        if self.layer not in found:
            raise UserError(
                f"rome.layer = {self.layer}",
                f"one of {', '.join(map(str, found))}, the MLPs selected",
                "choose another layer, or another selection",
            )
        return self.layer

    def _write(
        self,
        model: Model,
        chosen: Selection,
        subjects: Subjects,
        fact: int,
        inverse: Inverse,
        state: State,
    ) -> tuple[State, dict[str, float]]:
        """The state with one more fact in it, and the record of that fact."""
        ((_, (layer,)),) = chosen.tensors
        network = model.network
        params = down.replaced(model.params, chosen, state.edited)
        rows = subjects.place(network, fact)
        seen = fetch(look(network, params, rows, subjects.start, ("neuron", "down")))
        key, size = seen["neuron"][layer], float(np.linalg.norm(seen["down"][layer]))
        found = fetch(
            self.value(network, params, rows, subjects.start, "down", layer, size)
        )
        (along,) = inverse(key[None])
        along = along / (along @ key)
        left, right = along.astype(np.float32)[None], found.delta[None]
        edited = down.add(state.edited, 0, left, right)
        return State(edited, ()), found.record(size)
