"""LoRA: low-rank changes of the selected matrices (Hu et al. 2021, arXiv 2106.09685).

    W' = W + alpha / rank * A B        A: [in, rank], B: [rank, out]

`in` and `out` are what a matrix reads and writes, heads and projections together. A is
drawn as in the original, uniform within sqrt(3 / in), and B is 0: the first step sees
the model itself. The edit that comes of it holds the whole changed matrices. There is
no dropout: a change of weights has no activations of its own to drop.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
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

    def variables(self, params: Params, selection: Selection) -> Params:
        """The factors: `LABEL.in` [layer, rank, ...] and `LABEL.out` likewise."""
        rng, out = np.random.default_rng(self.seed), {}
        for label, layers in selection.tensors:
            shape = {**params[label].named_shape, "layer": len(layers)}
            reads = summed(label)
            head = {"layer": len(layers), "rank": self.rank}
            ins = head | {axis: shape[axis] for axis in reads}
            outs = head | {a: n for a, n in shape.items() if a not in (*reads, "layer")}
            bound = math.sqrt(3 / math.prod(shape[axis] for axis in reads))
            drawn = rng.uniform(-bound, bound, tuple(ins.values()))
            zero = jnp.zeros(tuple(outs.values()), jnp.float32)
            first = jnp.asarray(drawn, jnp.float32)
            out[f"{label}.in"] = pz.nx.wrap(first).tag(*ins)
            out[f"{label}.out"] = pz.nx.wrap(zero).tag(*outs)
        return out

    def tensors(self, trained: Params, params: Params, selection: Selection) -> Params:
        """The selected matrices with their changes added; float32."""
        scale, out = self.alpha / self.rank, {}
        dot = functools.partial(jnp.dot, precision=EXACT)
        for label, base in take(params, dict(selection.tensors)).items():
            a, b = (trained[f"{label}.{end}"].untag("rank") for end in ("in", "out"))
            change = pz.nx.nmap(dot)(a, b) * scale
            out[label] = (base.astype(jnp.float32) + change).order_like(base)
        return out
