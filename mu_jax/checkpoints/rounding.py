"""A model, and what is left of an edit, in a narrower format.

An edit moves weights by little. Where a move is less than half the distance to the next
number that the format has, rounding takes it back, and nothing else shows that.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mu_jax.checkpoints.delta import Change
from mu_jax.checkpoints.huggingface.config import is_llama
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import Params, name_axes, shapes
from mu_jax.selectors.selections import Matrix

ENOUGH = 0.9
"""The least share of an edit's norm that passes for the edit. With a tenth or more gone
it is another model than the one that was measured, often the unedited one."""


class Left(NamedTuple):
    """What rounding to a format leaves of an edit.

    With w the weights before the edit, v after it (both as the model holds them), R
    rounding, d = v - w what was asked for and r = R(v) - R(w) what comes of it, over
    all edited tensors together:

    norm:  <r, d> / <d, d>, how far r goes in the direction of d. 1: all of it is left;
           0: none; more than 1 where rounding up wins.
    moved: of the weights with d != 0, the share with r != 0.
    """

    norm: float
    moved: float


def rounded(model: Model, dtype: str) -> Model:
    """`model` as it is once it was written in a dtype and read again, bit for bit.

    It is held and computed in the dtypes that it has. Norms of Gemma are rounded as
    checkpoints hold them, without the 1 that is added.
    """
    params: Params = {}
    for label, shape in shapes(model.spec).items():
        value = model.params[label].unwrap(*shape)
        shift = int(label.endswith("norm") and not is_llama(model.spec))
        stored = (value - shift if shift else value).astype(dtype).astype(value.dtype)
        new = stored + shift if shift else stored
        params[label] = name_axes(label, new, model.spec)
    return dataclasses.replace(model, params=params)


def left(changes: Mapping[Matrix, Change], dtypes: Mapping[Matrix, Any]) -> Left:
    """What each tensor's rounding to its dtype leaves; all of an edit of nothing."""
    along = size = 0.0
    asked_for = still = 0
    for matrix, change in changes.items():
        held = change.new.astype(change.old.dtype)
        asked = _apart(held, change.old)
        kept = _apart(*(x.astype(dtypes[matrix]) for x in (held, change.old)))
        along += float(np.vdot(asked, kept))
        size += float(np.vdot(asked, asked))
        asked_for += np.count_nonzero(asked)
        still += np.count_nonzero(kept[asked != 0])
    if not asked_for:
        return Left(1.0, 1.0)
    return Left(along / size, still / asked_for)


def check(found: Left, what: str) -> None:
    """Raises UserError if too little is left; `what` names the edit and the format."""
    if found.norm < ENOUGH:
        raise UserError(
            f"{what}: rounding leaves {spell(found)}",
            f"at least {ENOUGH:.0%} of its norm: less is not what was measured",
            "--dtype float32 keeps all of it, --rounded exports it even so",
        )


def spell(found: Left) -> str:
    """For people."""
    return f"{found.norm:.1%} of its norm and {found.moved:.1%} of its moved weights"


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) - b.astype(np.float64)
