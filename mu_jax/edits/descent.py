"""Descent: AdamW on a few variables, everything else frozen.

A step (`step`) is a pure function of its number, so that a descent which is cut short
goes on from its last snapshot and ends with the same bits. Numbers that do not change
the program (learning rate, steps, seed) are data: one compilation serves a whole sweep
over them.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from mu_jax.devices.sharding import fetch
from mu_jax.edits.batches import draw
from mu_jax.edits.editor import Record, Snapshots, State
from mu_jax.edits.step import Batch, Rate, Stepper, update, wide
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate, shared_prefix
from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.types import Edit, Progress, Prompts, Selection, silent


@dataclasses.dataclass(frozen=True)
class Descent(Stepper):
    """Clipped AdamW on what an objective says; see `GradientEdit` for the main one.

    Attributes:
      steps: optimiser steps; the learning rate follows a cosine to 0 over them.
      forget_batch, retain_batch, text_batch: rows of each a step.
      seed: orders the rows.
      clip, accumulate, remat, masters: of each step, see `Stepper`.
    """

    steps: int = 14
    learning_rate: float = 1e-4
    forget_batch: int = 16
    retain_batch: int = 24
    text_batch: int = 2
    seed: int = 0

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

    @property
    def forget_rows(self) -> int:
        """How many rows of a part are to be forgotten; they come first."""
        return self.forget_batch // self.accumulate

    def place(self, network: Network, batch: Batch) -> Batch:
        """The batch on the devices, each of which is given its own rows."""
        if network.layout is None:
            return batch
        return network.layout.rows(batch, axis=int(self.accumulate > 1))

    def remarks(self, network: Network, rows: int) -> list[str]:
        """Which rows are computed for nothing, or read more than once; see `Editor`."""
        said, drawn = [], self.steps * self.text_batch
        if more := self.fillers(network):
            said.append(f"{more} more rows a step fill up the mesh")
        if drawn > rows:
            said.append(
                f"draws {drawn} rows of general text, of which there are {rows}:"
                f" each is read {drawn / rows:.1f} times"
            )
        return said

    def fillers(self, network: Network) -> int:
        """How many rows a step computes only because the devices do not divide its own.

        They count for nothing; batches that are larger by as many cost no more.
        """
        parts = self.accumulate
        asked = (self.forget_batch + self.retain_batch) // parts
        both = (asked, self.text_batch // parts)
        return parts * sum(network.whole(rows) - rows for rows in both)


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
        return Edit(self.selection, wide(made), self.history)
