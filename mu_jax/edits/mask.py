"""Weight masks: which weights of a selection does forgetting need gone? (method §5, v1)

    W' = W * m        m in [0, 1], from 1, one number a weight

The objective is the edit's own plus `sparsity` times the sum of 1 - m, so that weights
that need not go stay. The analysis then takes the N smallest entries of m to 0 and all
others to 1: curves over N say how few weights carry the facts.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from penzai import pz

from mu_jax.devices.sharding import fetch
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.losses import Loss, Unlearn
from mu_jax.edits.step import Batch
from mu_jax.model.network import Network
from mu_jax.model.params import Params, take
from mu_jax.types import Edit, Selection


@dataclasses.dataclass(frozen=True)
class WeightMask(GradientEdit):
    """Learns a mask over a selection; the edit that it gives is W * m as learned.

    Attributes:
      sparsity: the price of masking one weight whole, in nats.
    """

    learning_rate: float = 1e-2
    loss: Loss = Unlearn()
    sparsity: float = 3e-7

    terms: ClassVar[tuple[str, ...]] = (*GradientEdit.terms, "masked")

    def variables(self, params: Params, selection: Selection) -> Params:
        """m: ones, shaped like the selected tensors."""
        return jax.tree.map(jnp.ones_like, super().variables(params, selection))

    def tensors(self, trained: Params, params: Params, selection: Selection) -> Params:
        """W * m; float32."""
        return {
            label: (base.astype(jnp.float32) * trained[label]).order_like(base)
            for label, base in take(params, dict(selection.tensors)).items()
        }

    def objective(
        self,
        trained: Params,
        network: Network,
        selection: Selection,
        prefix: int,
        params: Params,
        batch: Batch,
    ) -> tuple[Array, Mapping[str, Array]]:
        """L and its terms; `masked` is the sum of 1 - m, in weights."""
        loss, terms = super().objective(
            trained, network, selection, prefix, params, batch
        )
        masked = sum((1 - leaf).sum() for leaf in jax.tree.leaves(trained))
        total = loss + self.sparsity * masked
        return total, {**terms, "loss": total, "masked": jnp.float32(masked)}

    def project(self, trained: Params) -> Params:
        """m within [0, 1]."""
        return jax.tree.map(lambda m: m.clip(0, 1), trained)


def zeroed(params: Params, learned: Edit, count: int) -> Edit:
    """The selected tensors with the `count` most masked weights at 0, others as before.

    Weights whose mask is 1 are never taken; fewer than `count` go where fewer are
    below. Ties go to the weights that come first.

    Args:
      params: the unmasked model's.
      learned: what `WeightMask` made of it.
    """
    selection = learned.selection
    base = {
        label: np.asarray(fetch(a.unwrap(*a.named_shape)), np.float32)
        for label, a in take(params, dict(selection.tensors)).items()
    }
    masked = {
        label: np.asarray(fetch(learned.params[label].unwrap(*axes)))
        for label, axes in ((k, params[k].named_shape) for k in base)
    }
    # m is W' / W; a weight that was 0 is not needed, and stays.
    masks = {
        label: np.divide(masked[label], w, out=np.ones_like(w), where=w != 0).ravel()
        for label, w in base.items()
    }
    flat = np.concatenate(list(masks.values()))
    order = np.argsort(flat, kind="stable")[:count]
    return _without(params, selection, order[flat[order] < 1 - 1e-6])


def scattered(params: Params, selection: Selection, count: int, seed: int) -> Edit:
    """The selected tensors with `count` weights at 0, drawn at random: a control."""
    rng = np.random.default_rng(seed)
    gone = rng.choice(selection.n_params, min(count, selection.n_params), replace=False)
    return _without(params, selection, gone)


def _without(params: Params, selection: Selection, gone: np.ndarray) -> Edit:
    """The selected tensors with these weights at 0, counted tensor after tensor."""
    new, start = {}, 0
    for label, array in take(params, dict(selection.tensors)).items():
        axes = array.named_shape
        w = np.array(fetch(array.unwrap(*axes)), np.float32)
        here = gone[(gone >= start) & (gone < start + w.size)] - start
        w.ravel()[here] = 0
        start += w.size
        new[label] = pz.nx.wrap(jnp.asarray(w)).tag(*axes)
    return Edit(selection, new, [])
