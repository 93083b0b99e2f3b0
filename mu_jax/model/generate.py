"""Greedy continuations, from a memory of keys and values.

The prompts run once; then one token a row and step, each behind the keys and values of
all tokens before it. Keys are kept as attention uses them, after their rotation, so a
slot of the memory needs no more than the position it was filled at. Rows of different
lengths share a batch: padding leaves empty slots, which nothing attends to.
"""

import functools
import itertools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import Params
from mu_jax.types import Tensor

if TYPE_CHECKING:
    from mu_jax.model.model import Model


class State(NamedTuple):
    """A generation under way: what is remembered, and what comes next.

    key, value: [layer, batch, slot, group, projection], of the prompts (padding
        included) and then of what was generated.
    places: the position of the token in each slot, -1 where it is empty.
    free:   the first slot that nothing was generated into yet.
    logits: of each row's next token; `position` is where that token will stand.
    done:   rows that have said a token to stop at.
    """

    key: Float[Array, "layer batch slot group projection"]
    value: Float[Array, "layer batch slot group projection"]
    places: Int[Array, "batch slot"]
    free: Int[Array, ""]
    logits: Float[Array, "batch vocabulary"]
    position: Int[Array, " batch"]
    done: Bool[Array, " batch"]


def generate(
    model: "Model",
    tokens: Int[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    length: int,
    stop: tuple[int, ...] = (),
) -> Int[np.ndarray, "batch length"]:
    """The likeliest next token of each row, `length` times over.

    A row that said a token of `stop` is padding from there on, and when all have the
    rest is not computed. What a row says does not depend on the rows beside it.
    Compiled once per shape.

    Args:
      tokens, valid: prompts, padded on the right, as in `types.Prompts`.

    Raises:
      UserError: a prompt that with its continuation exceeds the model's context.
    """
    longest = int(np.sum(valid, axis=1).max()) + length
    if longest > model.spec.context:
        raise UserError(
            f"a prompt and its continuation of {longest} tokens",
            f"at most {model.spec.context}, the model's context",
            "shorten the prompt, or generate less",
        )
    state = begin(model.network, model.params, tokens, valid, room=length)
    return fetch(go_on(model, state, length, stop)[1])


def ended(row: Int[Tensor, " length"], ends: tuple[int, ...]) -> list[int]:
    """The tokens that were said before one at which a text ends."""
    ids = np.asarray(row).tolist()
    return list(itertools.takewhile(lambda token: token not in ends, ids))


def go_on(
    model: "Model", state: State, length: int, stop: tuple[int, ...] = ()
) -> tuple[State, Int[Array, "batch length"]]:
    """`length` more tokens a row, and the state behind them; uses `state` up.

    All calls together have to stay within the `room` that `begin` made.
    """
    return _go_on(
        model.network,
        model.params,
        state,
        np.asarray(stop, np.int32),
        np.int32(model.tokenizer.pad),
        length=length,
    )


@functools.partial(jax.jit, static_argnames=("network", "room"))
def begin(
    network: Network,
    params: Params,
    tokens: Int[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq"],
    *,
    room: int,
) -> State:
    """Reads the prompts, and makes room for `room` tokens behind them."""
    stream, reads = network.stream(params, tokens, valid, read=("key", "value"))
    count = valid.sum(axis=1, dtype=jnp.int32)
    places = jnp.where(valid, jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1, -1)
    empty = ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))
    last = valid.shape[1] - 1 - valid[:, ::-1].argmax(axis=1)
    return State(
        key=jnp.pad(reads["key"], empty),
        value=jnp.pad(reads["value"], empty),
        places=jnp.pad(places, ((0, 0), (0, room)), constant_values=-1),
        free=jnp.int32(tokens.shape[1]),
        logits=network.logits(params, take_last(stream, last)),
        position=count,
        done=jnp.zeros(len(tokens), bool),
    )


@functools.partial(
    jax.jit, static_argnames=("network", "length"), donate_argnames="state"
)
def _go_on(network, params, state: State, stop, pad, *, length: int):
    said = jnp.full((len(state.done), length), pad, jnp.int32)

    def unfinished(carry):
        t, state, _ = carry
        return (t < length) & ~state.done.all()

    def step(carry):
        t, state, said = carry
        token = jnp.where(state.done, pad, state.logits.argmax(axis=1))
        state = _said(network, params, state, token.astype(jnp.int32), stop)
        return t + 1, state, said.at[:, t].set(token.astype(jnp.int32))

    _, state, said = jax.lax.while_loop(unfinished, step, (0, state, said))
    return state, said


def _said(network, params, state: State, token, stop) -> State:
    """The state once each row has said its `token`."""
    memory = {"key": state.key, "value": state.value}
    stream, new = network.extend(
        params, token[:, None], state.position[:, None], memory, state.places
    )
    store = functools.partial(
        jax.lax.dynamic_update_slice_in_dim, start_index=state.free
    )
    return State(
        key=store(state.key, new["key"], axis=2),
        value=store(state.value, new["value"], axis=2),
        places=store(state.places, state.position[:, None], axis=1),
        free=state.free + 1,
        logits=network.logits(params, stream[:, 0]),
        position=state.position + 1,
        done=state.done | (token[:, None] == stop[None]).any(axis=1),
    )
