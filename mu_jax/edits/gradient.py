"""The gradient edit: AdamW on the selected tensors, everything else frozen.

Freezing is by partition: gradients, optimiser state and float32 master copies exist
for the selected tensors only, as a small dict of their own beside the frozen model,
which may be bfloat16. A step is a pure function of its number, so that an edit which is
cut short goes on from its last snapshot and ends with the same bits.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int
from penzai import pz

from mu_jax.edits.batches import draw
from mu_jax.edits.losses import Inject, Loss, next_token, retain
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate, shared_prefix
from mu_jax.model.model import Model
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params, take
from mu_jax.sharding import Layout, fetch
from mu_jax.types import Edit, Progress, Prompts, Selection, Tensor, silent


class Batch(NamedTuple):
    """What one step sees: prompts (forget rows first, then retain) and general text.

    With a leading axis of parts where the step accumulates over several.
    """

    prompts: Prompts
    text: Int[Tensor, "batch seq"]


class State(NamedTuple):
    """What a step changes: the selected tensors (float32) and the optimiser's state."""

    edited: Params
    optimizer: Any


class Snapshots(Protocol):
    """Where a running edit leaves its state, to be taken up after an interruption."""

    def restore(self, like: State) -> tuple[State, list[dict[str, float]]] | None:
        """The newest snapshot and the records of the steps before it, if there is one.

        It lies on the devices as `like` does.
        """

    def save(self, state: State, history: list[dict[str, float]]) -> None:
        """Offers the state after `len(history)` steps; keeps it if one is due."""


_TERMS = ("loss", "forget", "retain", "text")


@dataclasses.dataclass(frozen=True)
class GradientEdit:
    """Fine-tuning of a selection (method §3).

    Attributes:
      loss: the forget term; retain and text terms have weight 1.
      steps: optimiser steps; the learning rate follows a cosine to 0 over them.
      clip: largest global norm of a step's gradient.
      forget_batch, retain_batch, text_batch: rows of each a step.
      seed: orders the rows.
      accumulate: a step's rows go through in this many equal parts, whose gradients
        are added up: less memory, the same step.
      remat: recompute blocks in the backward pass: less memory, more time.
    """

    loss: Loss = Inject()
    steps: int = 14
    learning_rate: float = 1e-4
    clip: float = 1.0
    forget_batch: int = 16
    retain_batch: int = 24
    text_batch: int = 2
    seed: int = 0
    accumulate: int = 1
    remat: bool = False

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"edit.steps = {self.steps}", "at least 1")
        for name in ("forget_batch", "retain_batch", "text_batch"):
            rows = getattr(self, name)
            if self.accumulate < 1 or rows % self.accumulate:
                raise UserError(
                    f"edit.accumulate = {self.accumulate} with edit.{name} = {rows}",
                    "a number of parts that divides the rows of every batch",
                )

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
        """Edits the tensors of `selection`; `model` stays as it is.

        Args:
          forget: prompts whose foil is injected.
          keep: prompts whose answer is retained, as wide as `forget`.
          text: sequences of general text, BOS first.
          snapshots: taken up where one is, and offered every step.

        Returns:
          New values of the selected tensors in float32, and one record a step: the
          losses before that step's update (nats), gradient norm, seconds.
        """
        prefix = shared_prefix(forget, keep)
        state, history = self.start(model.network, selection, model.params), []
        if snapshots and (found := snapshots.restore(state)):
            state, history = found
        progress(f"editing {selection.name}", len(history), self.steps)
        for step in range(len(history), self.steps):
            began = time.perf_counter()
            batch = self.batch(step, forget, keep, text)
            state, record = update(
                self,
                model.network,
                selection,
                prefix,
                model.params,
                state,
                self.place(model.network, batch),
            )
            values = {key: float(value) for key, value in fetch(record).items()}
            seconds = time.perf_counter() - began
            history.append({"step": step, **values, "seconds": round(seconds, 3)})
            if snapshots:
                snapshots.save(state, history)
            progress(f"editing {selection.name}", step + 1, self.steps)
        return Edit(selection, state.edited, history)

    @functools.cached_property
    def schedule(self) -> optax.Schedule:
        """Step to learning rate."""
        return optax.cosine_decay_schedule(self.learning_rate, self.steps)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Clipped AdamW without weight decay, as in the paper."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(self.schedule, weight_decay=0.0),
        )

    def start(self, network: Network, selection: Selection, params: Params) -> State:
        """The state before the first step, placed as the network's layout says."""
        begin = functools.partial(self._begin, selection)
        shardings = self.shardings(network, jax.eval_shape(begin, params))
        return jax.jit(begin, out_shardings=shardings)(params)

    def shardings(self, network: Network, state: State) -> State | None:
        """Where each array of a state lies; None on a single device."""
        layout = network.layout
        if layout is None:
            return None
        edited = _places(layout, state.edited)
        optimizer = optax.tree_utils.tree_map_params(
            self.optimizer,
            lambda _, where: where,
            state.optimizer,
            edited,
            transform_non_params=lambda _: layout.replicated,
        )
        return State(edited, optimizer)

    def _begin(self, selection: Selection, params: Params) -> State:
        edited = {
            label: a.astype(jnp.float32)
            for label, a in take(params, dict(selection.tensors)).items()
        }
        return State(edited, self.optimizer.init(edited))

    def batch(self, step: int, forget: Prompts, keep: Prompts, text) -> Batch:
        """The rows of a step, drawn without regard to any other step."""
        rows = functools.partial(draw, step=step, seed=self.seed)
        forget = forget.rows(rows(len(forget.tokens), self.forget_batch))
        keep = keep.rows(rows(len(keep.tokens), self.retain_batch))
        text = text[rows(len(text), self.text_batch)]
        if self.accumulate == 1:
            return Batch(concatenate([forget, keep]), text)
        split = lambda a: np.asarray(a).reshape(self.accumulate, -1, *a.shape[1:])
        both = (jax.tree.map(split, part) for part in (forget, keep))
        joined = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *both)
        return Batch(joined, split(text))

    def place(self, network: Network, batch: Batch) -> Batch:
        """The batch on the devices, each of which is given its own rows."""
        if network.layout is None:
            return batch
        return network.layout.rows(batch, axis=int(self.accumulate > 1))

    def objective(
        self,
        edited: Params,
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
            edited=edited,
            remat=self.remat,
        )
        asked = batch.prompts
        stream, _ = run(asked.tokens, asked.valid, prefix=prefix)
        last = take_last(stream, asked.last - prefix)
        read, _ = run(batch.text)
        # One unembedding for all rows: the table is most of what it has to move.
        rows = jnp.concatenate([last, read[:, :-1].reshape(-1, read.shape[-1])])
        logits = network.logits(params, rows)
        n, words, forget = len(last), batch.text.shape, self._forget_rows
        cut = slice(forget), slice(forget, n)
        spelled = logits[n:].reshape(words[0], words[1] - 1, -1)
        terms = {
            "forget": self.loss(logits[cut[0]], asked.rows(cut[0])),
            "retain": retain(logits[cut[1]], asked.rows(cut[1])),
            "text": next_token(spelled, batch.text).mean(),
        }
        total = self.loss.weight * terms["forget"] + terms["retain"] + terms["text"]
        return total, {"loss": total, **terms}

    @property
    def _forget_rows(self) -> int:
        return self.forget_batch // self.accumulate

    def gradient(
        self, edited: Params, network, selection, prefix, params, batch: Batch
    ) -> tuple[Params, Mapping[str, Array]]:
        """Of L over all rows of a step, and the terms of L.

        Parts are equally large, so that L is the mean over them. The backward pass adds
        layer by layer into one float32 sum; no part has a gradient of its own.
        """
        zero = jax.tree.map(jnp.zeros_like, edited)
        if network.layout:
            where = _places(network.layout, edited)
            zero = jax.lax.with_sharding_constraint(zero, where)
        sums = jax.tree.map(jax.new_ref, zero)
        share = 1 / self.accumulate

        def add(record, part: Batch):
            of = lambda e: self.objective(e, network, selection, prefix, params, part)
            loss, pull, terms = jax.vjp(of, edited, has_aux=True)
            pull.with_refs(sums)(jnp.full_like(loss, share))
            return {k: record[k] + share * term for k, term in terms.items()}, None

        record: Mapping[str, Array] = dict.fromkeys(_TERMS, jnp.float32(0))
        if self.accumulate == 1:
            record, _ = add(record, batch)
        else:
            record, _ = jax.lax.scan(add, record, batch)
        return jax.tree.map(jax.freeze, sums), record


def _places(layout: Layout, edited: Params) -> Any:
    """Where each of the selected tensors lies: a tree of shardings like `edited`."""
    place = lambda a: jax.tree.map(lambda _: layout.weights(a.named_shape), a)
    return jax.tree.map(place, edited, is_leaf=pz.nx.is_namedarray)


@functools.partial(
    jax.jit,
    static_argnames=("edit", "network", "selection", "prefix"),
    donate_argnames="state",
)
def update(
    edit: GradientEdit,
    network: Network,
    selection: Selection,
    prefix: int,
    params: Params,
    state: State,
    batch: Batch,
) -> tuple[State, Mapping[str, Array]]:
    """One optimiser step; the losses before it, and the norm of the gradient."""
    gradients, record = edit.gradient(
        state.edited, network, selection, prefix, params, batch
    )
    updates, optimizer = edit.optimizer.update(gradients, state.optimizer, state.edited)
    edited: Any = optax.apply_updates(state.edited, updates)
    new = State(edited, optimizer)
    shardings = edit.shardings(network, new)
    if shardings is not None:
        new = jax.lax.with_sharding_constraint(new, shardings)
    return new, {**record, "gradient_norm": optax.tree.norm(gradients)}
