"""The matrices that ROME and MEMIT change: the down projections of a selection.

A row of hidden units k writes k W to the stream (through the post-norm, where there is
one). Adding (sum over facts of) left right^T to W changes what is written for keys that
have a part along `left`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from penzai import pz

from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import Params, put, take
from mu_jax.model.precision import EXACT
from mu_jax.types import Selection, Tensor

LABEL = "mlp/down"


def layers(selection: Selection) -> tuple[int, ...]:
    """Where the selection holds an MLP's down projection, ascending.

    Raises:
      UserError: nowhere.
    """
    found = dict(selection.tensors).get(LABEL, ())
    if not found:
        named = ", ".join(label for label, _ in selection.tensors)
        raise UserError(
            f"the selection {selection.name!r} of {named}",
            f"MLP output tensors ({LABEL})",
            "select MLPs, or edit by gradient descent",
        )
    return found


def narrowed(selection: Selection, model: Model, chosen: tuple[int, ...]) -> Selection:
    """The down projections of these layers alone, under the same name."""
    return dataclasses.replace(
        selection,
        tensors=((LABEL, chosen),),
        n_params=model.sizes.tensors[LABEL] * len(chosen),
    )


def wide(params: Params, selection: Selection) -> Params:
    """The selected tensors in float32, to be changed."""
    taken = take(params, dict(selection.tensors))
    return {label: a.astype(jnp.float32) for label, a in taken.items()}


def replaced(params: Params, selection: Selection, edited: Params) -> Params:
    """`params` with the edited tensors in place; the rest is shared."""
    return put(params, dict(selection.tensors), edited)


def add(
    edited: Params,
    index: int,
    left: Float[Tensor, "fact neurons"],
    right: Float[Tensor, "fact embedding"],
) -> Params:
    """`edited` with left^T right added to the layer that stands at `index` in it."""
    return {LABEL: _add(edited[LABEL], np.int32(index), left, right)}


@jax.jit
def _add(
    stack: pz.nx.NamedArray,
    index: Int[Tensor, ""],
    left: Float[Tensor, "fact neurons"],
    right: Float[Tensor, "fact embedding"],
) -> pz.nx.NamedArray:
    axes = ("layer", "neurons", "embedding")
    change = jnp.matmul(left.T, right, precision=EXACT)
    array = stack.unwrap(*axes)
    array = array.at[index].add(change.astype(array.dtype))
    return pz.nx.wrap(array).tag(*axes)
