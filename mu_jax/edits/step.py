"""One compiled step of a descent: clipped AdamW on what an objective says.

Freezing is by partition: gradients, optimiser state and float32 master copies exist for
the trained variables only, as a small dict of their own beside the frozen model, which
may be bfloat16.

What is trained, and what it stands for, is for the kinds of descent to say: the
selected tensors themselves, low-rank changes of them, a mask over them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from penzai import pz

from mu_jax.devices.sharding import Layout
from mu_jax.edits.editor import State
from mu_jax.model.network import Network
from mu_jax.model.params import Named, Params, take
from mu_jax.types import Prompts, Selection, Tensor


class Batch(NamedTuple):
    """What one step sees: prompts (forget rows first, then retain) and general text.

    With a leading axis of parts where the step accumulates over several.
    """

    prompts: Prompts
    text: Int[Tensor, "batch seq"]


Rate = Float[Tensor, ""] | dict[str, Named]
"""A learning rate: one for all, or for each variable one a layer, 0 where frozen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stepper:
    """What of a descent its compiled step knows.

    Attributes:
      clip: largest global norm of a step's gradient.
      accumulate: a step's rows go through in this many equal parts, whose gradients
        are added up: less memory, the same step.
      remat: recompute blocks in the backward pass: less memory, more time.
      masters: float32 copies of the selected tensors are trained, of which the network
        is given what its dtype can hold. Without, as in the paper's runs, tensors and
        optimiser have the model's own dtype: of bfloat16, changes under 2^-9 of a
        weight are lost at every step.
    """

    clip: float = 1.0
    accumulate: int = 1
    remat: bool = False
    masters: bool = True

    terms: ClassVar[tuple[str, ...]] = ("loss",)

    # ---- what a kind of descent says

    def variables(self, params: Params, selection: Selection) -> Params:
        """What is trained, before the first step; masters are float32 at least."""
        chosen = take(params, dict(selection.tensors))
        return wide(chosen) if self.masters else chosen

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

    # ---- the step

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

        none = jnp.zeros((), jnp.result_type(*jax.tree.leaves(wide(trained))))
        record: Any = dict.fromkeys(self.terms, none)
        if self.accumulate == 1:
            record, _ = add(record, batch)
        else:
            record, _ = jax.lax.scan(add, record, batch)
        return jax.tree.map(jax.freeze, sums), record


def wide(tensors: Params) -> Params:
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
    descent: Stepper,
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
