"""Descent: AdamW on a few variables, everything else frozen.

Freezing is by partition: gradients, optimiser state and float32 master copies exist
for the trained variables only, as a small dict of their own beside the frozen model,
which may be bfloat16. A step is a pure function of its number, so that one which is cut
short goes on from its last snapshot and ends with the same bits.

What is trained, and what it stands for, is for the kinds of descent to say: the
selected tensors themselves, low-rank changes of them, a mask over them. Numbers that do
not change the program (learning rate, steps, seed) are data: one compilation serves a
whole sweep over them.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from penzai import pz

from mu_jax.devices.sharding import Layout, fetch
from mu_jax.edits.batches import draw
from mu_jax.edits.editor import Record, Snapshots, State
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate, shared_prefix
from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.model.params import Named, Params, take
from mu_jax.types import Edit, Progress, Prompts, Selection, Tensor, silent


class Batch(NamedTuple):
    """What one step sees: prompts (forget rows first, then retain) and general text.

    With a leading axis of parts where the step accumulates over several.
    """

    prompts: Prompts
    text: Int[Tensor, "batch seq"]


Rate = Float[np.ndarray, ""] | dict[str, Named]
"""A learning rate: one for all, or for each variable one a layer, 0 where frozen."""


@dataclasses.dataclass(frozen=True)
class Descent:
    """Clipped AdamW on what an objective says; see `GradientEdit` for the main one.

    Attributes:
      steps: optimiser steps; the learning rate follows a cosine to 0 over them.
      clip: largest global norm of a step's gradient.
      forget_batch, retain_batch, text_batch: rows of each a step.
      seed: orders the rows.
      accumulate: a step's rows go through in this many equal parts, whose gradients
        are added up: less memory, the same step.
      remat: recompute blocks in the backward pass: less memory, more time.
      masters: float32 copies of the selected tensors are trained, of which the network
        is given what its dtype can hold. Without, as in the paper's runs, tensors and
        optimiser have the model's own dtype: of bfloat16, changes under 2^-9 of a
        weight are lost at every step.
    """

    steps: int = 14
    learning_rate: float = 1e-4
    clip: float = 1.0
    forget_batch: int = 16
    retain_batch: int = 24
    text_batch: int = 2
    seed: int = 0
    accumulate: int = 1
    remat: bool = False
    masters: bool = True

    terms: ClassVar[tuple[str, ...]] = ("loss",)

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

    # ---- what a kind of descent says

    def variables(self, params: Params, selection: Selection) -> Params:
        """What is trained, before the first step; masters are float32 at least."""
        chosen = take(params, dict(selection.tensors))
        return _wide(chosen) if self.masters else chosen

    def tensors(self, trained: Params, params: Params, selection: Selection) -> Params:
        """The values of the selected tensors that the variables stand for."""
        return trained

    def applied(self, trained: Params, params: Params, selection: Selection) -> Params:
        """What the network is run with: the `edited` of `model.stack.run`."""
        return self.tensors(trained, params, selection)

    def objective(
        self,
        trained: Params,
        network: Network,
        selection: Selection,
        prefix: int,
        params: Params,
        batch: Batch,
    ) -> tuple[Array, Mapping[str, Array]]:
        """The loss, and the numbers called `terms`, over one part of a step's rows."""
        raise NotImplementedError

    def project(self, trained: Params) -> Params:
        """The variables after a step, put back where they have to be."""
        return trained

    def add_up(self, pull: Any, sums: Any, share: Array) -> None:
        """Adds a share of the gradient that `pull` gives to the references `sums`."""
        pull.with_refs(sums)(share)

    # ---- the loop

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
        """Edits the tensors of `selection`; see `Editor`."""
        data = (forget, keep, text)
        for edit in self.walk(model, selection, *data, progress, snapshots):
            last = edit
        return last()

    def walk(
        self,
        model: Model,
        selection: Selection,
        forget: Prompts,
        keep: Prompts,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
        snapshots: Snapshots | None = None,
    ) -> Iterator["Step"]:
        """The edit step by step: each is called for the `Edit` so far, before the next.

        Begins with step 0, before any update, or where a snapshot goes on.
        """
        prefix = shared_prefix(forget, keep)
        state, history = self.start(model.network, selection, model.params), []
        if snapshots and (found := snapshots.restore(state)):
            state, history = found
        what = f"{type(self).__name__}: {selection.name}"
        progress(what, len(history), self.total)
        yield Step(self, model, selection, state, list(history))
        for step in range(len(history), self.total):
            began = time.perf_counter()
            if step and step % self.steps == 0:  # the next part begins afresh
                state = self.renew(state)
            batch = self.batch(step, forget, keep, text)
            state, record = update(
                self.program,
                model.network,
                selection,
                prefix,
                model.params,
                state,
                self.place(model.network, batch),
                self.rate(step, selection),
            )
            values = {key: float(value) for key, value in fetch(record).items()}
            seconds = time.perf_counter() - began
            history.append({"step": step, **values, "seconds": round(seconds, 3)})
            if snapshots:
                snapshots.save(state, history)
            progress(what, step + 1, self.total)
            yield Step(self, model, selection, state, list(history))

    @property
    def total(self) -> int:
        """How many steps are taken in all."""
        return self.steps

    def rate(self, step: int, selection: Selection) -> Rate:
        """The learning rate of a step: a cosine to 0 over `steps`."""
        turn = math.cos(math.pi * (step % self.steps) / self.steps)
        return np.asarray(self.learning_rate * (1 + turn) / 2, np.float32)

    def renew(self, state: State) -> State:
        """The state with its optimiser begun anew."""
        zero = jax.tree.map(jnp.zeros_like, state.optimizer)
        return State(state.edited, zero)

    @property
    def program(self) -> Self:
        """This descent without the numbers that are data to its compiled step."""
        return dataclasses.replace(self, steps=1, learning_rate=0.0, seed=0)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Clipped Adam, of which a step takes the learning rate's share.

        AdamW without weight decay, as in the paper.
        """
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.scale_by_adam())

    def start(self, network: Network, selection: Selection, params: Params) -> State:
        """The state before the first step, placed as the network's layout says."""
        begin = functools.partial(self.begin, selection)
        shardings = self.shardings(network, jax.eval_shape(begin, params))
        return jax.jit(begin, out_shardings=shardings)(params)

    def begin(self, selection: Selection, params: Params) -> State:
        """The state before the first step, as a function of its arrays."""
        trained = self.variables(params, selection)
        return State(trained, self.optimizer.init(trained))

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

    def fillers(self, network: Network) -> int:
        """How many rows a step computes only because the devices do not divide its own.

        They count for nothing; batches that are larger by as many cost no more.
        """
        parts = self.accumulate
        asked = (self.forget_batch + self.retain_batch) // parts
        both = (asked, self.text_batch // parts)
        return parts * sum(network.whole(rows) - rows for rows in both)

    @property
    def forget_rows(self) -> int:
        """How many rows of a part are to be forgotten; they come first."""
        return self.forget_batch // self.accumulate

    def gradient(
        self, trained: Params, network, selection, prefix, params, batch: Batch
    ) -> tuple[Params, Mapping[str, Array]]:
        """Of the objective over all rows of a step, and its terms.

        Parts are equally large, so that it is the mean over them. The backward pass
        adds layer by layer into one sum, as wide as what is trained; no part has a
        gradient of its own.
        """
        zero = jax.tree.map(jnp.zeros_like, trained)
        if network.layout:
            where = _places(network.layout, trained)
            zero = jax.lax.with_sharding_constraint(zero, where)
        sums = jax.tree.map(jax.new_ref, zero)
        share = 1 / self.accumulate

        def add(record, part: Batch):
            of = lambda t: self.objective(t, network, selection, prefix, params, part)
            loss, pull, terms = jax.vjp(of, trained, has_aux=True)
            self.add_up(pull, sums, jnp.full_like(loss, share))
            return {k: record[k] + share * terms[k] for k in self.terms}, None

        none = jnp.zeros((), jnp.result_type(*jax.tree.leaves(_wide(trained))))
        record: Any = dict.fromkeys(self.terms, none)
        if self.accumulate == 1:
            record, _ = add(record, batch)
        else:
            record, _ = jax.lax.scan(add, record, batch)
        return jax.tree.map(jax.freeze, sums), record


@dataclasses.dataclass(frozen=True)
class Step:
    """A descent after some steps; called, the edit that it has made by then.

    Its arrays are given to the next step: call it before going on.
    """

    descent: Descent
    model: Model
    selection: Selection
    state: State
    history: list[Record]

    @property
    def number(self) -> int:
        """How many steps have been taken."""
        return len(self.history)

    def __call__(self) -> Edit:
        made = self.descent.tensors(
            self.state.edited, self.model.params, self.selection
        )
        return Edit(self.selection, _wide(made), self.history)


def _wide(tensors: Params) -> Params:
    """In float32 at least."""
    wide = lambda a: a.astype(jnp.promote_types(a.dtype, jnp.float32))
    return {label: wide(array) for label, array in tensors.items()}


def _times(array: Named, factor: Any) -> Named:
    """The product, with its axes in the order of `array`'s."""
    return (array * factor).order_like(array)


def _places(layout: Layout, variables: Params) -> Any:
    """Where each of the variables lies: a tree of shardings like them."""
    place = lambda a: jax.tree.map(lambda _: layout.weights(a.named_shape), a)
    return jax.tree.map(place, variables, is_leaf=pz.nx.is_namedarray)


@functools.partial(
    jax.jit,
    static_argnames=("descent", "network", "selection", "prefix"),
    donate_argnames="state",
)
def update(
    descent: Descent,
    network: Network,
    selection: Selection,
    prefix: int,
    params: Params,
    state: State,
    batch: Batch,
    rate: Rate,
) -> tuple[State, Mapping[str, Array]]:
    """One optimiser step; the losses before it, and the norm of the gradient."""
    gradients, record = descent.gradient(
        state.edited, network, selection, prefix, params, batch
    )
    if isinstance(rate, dict):  # clipping sees what is trained, and nothing else
        gradients = {k: _times(g, rate[k] > 0) for k, g in gradients.items()}
    norm = optax.tree.norm(gradients)
    updates: Any
    updates, optimizer = descent.optimizer.update(gradients, state.optimizer)
    own = lambda label: rate[label] if isinstance(rate, dict) else rate
    moved = {
        k: (p - _times(updates[k], own(k))).astype(p.dtype)
        for k, p in state.edited.items()
    }
    new = State(descent.project(moved), optimizer)
    shardings = descent.shardings(network, new)
    if shardings is not None:
        new = jax.lax.with_sharding_constraint(new, shardings)
    return new, {**record, "gradient_norm": norm}
