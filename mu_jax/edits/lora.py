"""LoRA: low-rank changes of the selected matrices (Hu et al. 2021, arXiv 2106.09685).

    y = x W + alpha / rank * (x A) B        A: [in, rank], B: [rank, out]

`in` and `out` are what a matrix reads and writes, heads and projections together. A is
drawn as in the original, uniform within 1 / sqrt(in), and B is 0: the first step sees
the model itself. While it trains, W stays as it is, in the model's own dtype; the edit
that comes of it holds the whole changed matrices, W + alpha / rank * A B. There is no
dropout.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from penzai import pz

from mu_jax.edits.gradient import GradientEdit
from mu_jax.errors import UserError
from mu_jax.model.params import Params, summed, take
from mu_jax.model.precision import EXACT
from mu_jax.types import Selection


@dataclasses.dataclass(frozen=True)
class LoRA(GradientEdit):
    """A gradient edit of low rank.

    Attributes:
      rank: of the change of every matrix.
      alpha: the change is alpha / rank times the product of its factors.
    """

    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self):
        super().__post_init__()
        if self.rank < 1:
            raise UserError(f"edit.rank = {self.rank}", "at least 1")
        if not self.masters:
            raise UserError(
                "edit.masters = False with LoRA", "True: its factors are float32"
            )

    def variables(self, params: Params, selection: Selection) -> Params:
        """The factors: `LABEL.in` [layer, rank, ...] and `LABEL.out` likewise."""
        out, key = {}, jax.random.key(self.seed)
        for number, (label, layers) in enumerate(selection.tensors):
            shape = {**params[label].named_shape, "layer": len(layers)}
            reads = summed(label)
            head = {"layer": len(layers), "rank": self.rank}
            ins = head | {axis: shape[axis] for axis in reads}
            outs = head | {a: n for a, n in shape.items() if a not in (*reads, "layer")}
            bound = 1 / math.sqrt(math.prod(shape[axis] for axis in reads))
            own = jax.random.fold_in(key, number)
            dtype = jnp.promote_types(params[label].dtype, jnp.float32)
            first = jax.random.uniform(own, tuple(ins.values()), dtype, -bound, bound)
            zero = jnp.zeros(tuple(outs.values()), dtype)
            out[f"{label}.in"] = pz.nx.wrap(first).tag(*ins)
            out[f"{label}.out"] = pz.nx.wrap(zero).tag(*outs)
        return out

    def applied(self, trained: Params, params: Params, selection: Selection) -> Params:
        """The factors, the second with alpha / rank in it."""
        scale = self.alpha / self.rank
        return {k: a * scale if k.endswith(".out") else a for k, a in trained.items()}

    def add_up(self, pull: Any, sums: Any, share: Array) -> None:
        """Adds a share of the gradient that `pull` gives to the references `sums`.

        All at once: the factors are small, and layer by layer JAX takes the gradient
        of one for that of the other (seen in 0.10.1, where their shapes differ).
        """
        (found,) = pull(share)
        jax.tree.map(lambda ref, g: jax.ref.addupdate(ref, ..., g), sums, found)

    def tensors(self, trained: Params, params: Params, selection: Selection) -> Params:
        """The selected matrices with their changes added; float32 at least."""
        scale, out = self.alpha / self.rank, {}
        dot = functools.partial(jnp.dot, precision=EXACT)
        for label, base in take(params, dict(selection.tensors)).items():
            a, b = (trained[f"{label}.{end}"].untag("rank") for end in ("in", "out"))
            change = pz.nx.nmap(dot)(a, b) * scale
            out[label] = (base.astype(change.dtype) + change).order_like(base)
        return out
