"""The gradient edit: a loss on the forgotten facts, on the selected tensors alone."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mu_jax.edits.descent import Descent
from mu_jax.edits.losses import Inject, Loss, Truth, next_token
from mu_jax.edits.step import Batch
from mu_jax.errors import UserError
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.types import Selection


@dataclasses.dataclass(frozen=True)
class GradientEdit(Descent):
    """Fine-tuning of a selection (method §3).

    Attributes:
      loss: of the forgotten facts.
      retain: of the retained facts.
      text_weight: of the loss on general text.
    """

    loss: Loss = Inject()
    retain: Loss = Truth()
    text_weight: float = 1.0

    terms: ClassVar[tuple[str, ...]] = ("loss", "forget", "retain", "text")

    def __post_init__(self):
        super().__post_init__()
        for name, loss in (("loss", self.loss), ("retain", self.retain)):
            if not isinstance(loss, Loss):
                raise UserError(
                    f"edit.{name} = {repr(loss)[:60]}",
                    "a Loss",
                    f"see {Loss.__module__}",
                )

    def objective(
        self,
        trained: Params,
        network: Network,
        selection: Selection,
        prefix: int,
        params: Params,
        batch: Batch,
    ) -> tuple[Array, Mapping[str, Array]]:
        """L, and its terms, over one part of a step's rows."""
        run = functools.partial(
            network.stream,
            params,
            selection=selection,
            edited=self.applied(trained, params, selection),
            remat=self.remat,
        )
        asked = batch.prompts
        stream, _ = run(asked.tokens, asked.valid, prefix=prefix)
        last = take_last(stream, asked.last - prefix)
        read, _ = run(batch.text)
        # One unembedding for all rows: the table is most of what it has to move.
        rows = jnp.concatenate([last, read[:, :-1].reshape(-1, read.shape[-1])])
        logits = network.logits(params, rows)
        n, words = len(last), batch.text.shape
        original = self._original(network, prefix, params, batch)
        spelled = logits[n:].reshape(words[0], words[1] - 1, -1)

        def of(loss: Loss, cut: slice) -> Array:
            before = None if original is None else original[cut]
            return loss(logits[cut], asked.rows(cut), before)

        terms = {
            "forget": of(self.loss, slice(self.forget_rows)),
            "retain": of(self.retain, slice(self.forget_rows, n)),
            "text": next_token(spelled, batch.text).mean(),
        }
        total = (
            self.loss.weight * terms["forget"]
            + self.retain.weight * terms["retain"]
            + self.text_weight * terms["text"]
        )
        return total, {"loss": total, **terms}

    def _original(
        self, network: Network, prefix: int, params: Params, batch: Batch
    ) -> Float[Array, "batch vocabulary"] | None:
        """What the unedited model says of the prompts, if a loss compares with it."""
        if not (self.loss.compares or self.retain.compares):
            return None
        asked = batch.prompts
        stream, _ = network.stream(params, asked.tokens, asked.valid, prefix=prefix)
        logits = network.logits(params, take_last(stream, asked.last - prefix))
        return jax.lax.stop_gradient(logits)
