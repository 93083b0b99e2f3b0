"""A round trip through few bits: is the edit smaller than the rounding?

The cheapest attack there is (Zhang et al. 2024, arXiv 2410.16454): edits with small
steps move weights by less than the step of a coarse quantisation, which rounds them
back to where they were. Symmetric round-to-nearest, in groups of weights that feed the
same output,

    w  <-  s * round(w / s),     s = max |w| in the group / (2^(bits - 1) - 1)

and kept in the model's dtype. Where the unedited model, rounded likewise, has lost the
facts too, rounding shows nothing.
"""

import dataclasses
import functools
from collections.abc import MutableMapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from penzai import pz

from mu_jax.attacks.attack import Needs
from mu_jax.attacks.scoring import Scoring
from mu_jax.attacks.victim import Victim
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import ATTENTION, MLP, Named, summed
from mu_jax.types import Progress, Row, Tensor, silent


@dataclasses.dataclass(frozen=True)
class Quantize:
    """All matrices of attention and MLPs, rounded to few bits.

    Attributes:
      bits: of a weight, 2 to 8.
      group: weights of one output that share a scale; None: all of them.
      embeddings: the tables of embeddings and unembeddings too, a row a channel.
    """

    bits: tuple[int, ...] = (8, 4)
    group: int | None = 32
    embeddings: bool = False

    needs: ClassVar[Needs] = "model"

    def __post_init__(self):
        if not self.bits or not all(2 <= b <= 8 for b in self.bits):
            raise UserError(f"bits = {self.bits}", "numbers from 2 to 8")
        if self.group is not None and self.group < 2:
            raise UserError(f"group = {self.group} weights", "2 or more, or None")

    def __call__(
        self,
        victim: Victim,
        name: str,
        journal: MutableMapping[str, list[float]],
        progress: Progress = silent,
    ) -> list[Row]:
        """Rows at "bits=B"."""
        size = f"groups of {self.group}" if self.group else "whole channels"
        budget = f"weights rounded in {size}"
        scoring = Scoring(name, victim, budget, victim.facts.forget, journal)
        scoring.baselines()
        for done, bits in enumerate(self.bits):
            progress(name, done, len(self.bits))
            at, model = f"bits={bits}", victim.model
            made = not scoring.done(at)
            scoring.measure(at, self.rounded(model, bits) if made else model)
        progress(name, len(self.bits), len(self.bits))
        return scoring.rows()

    def rounded(self, model: Model, bits: int) -> Model:
        """The model with its matrices rounded; its norms are shared."""
        tables = ("embedder", "unembedder") if self.embeddings else ()
        labels = [k for k in (*ATTENTION, *MLP, *tables) if k in model.params]
        new = {
            label: _matrix(model.params[label], label, np.float32(bits), self.group)
            for label in labels
        }
        return dataclasses.replace(model, params={**model.params, **new})


def round_trip(
    weights: Float[Tensor, "*channel input"],
    bits: Float[Tensor, ""] | int,
    group: int | None,
) -> Float[Array, "*channel input"]:
    """Weights rounded in groups along the last axis; the last group may be shorter.

    Off by half a step s of the group at most; 0 stays 0; a second trip changes nothing.
    """
    *channels, n = weights.shape
    size = group or n
    wide = jnp.asarray(weights, jnp.promote_types(weights.dtype, jnp.float32))
    padded = jnp.pad(wide, [(0, 0)] * len(channels) + [(0, -n % size)])
    groups = padded.reshape(*channels, -1, size)
    step = abs(groups).max(axis=-1, keepdims=True) / (2.0 ** (bits - 1) - 1)
    step = jnp.where(step > 0, step, 1)
    back = (jnp.round(groups / step) * step).reshape(*channels, -1)
    return back[..., :n].astype(weights.dtype)


@functools.partial(jax.jit, static_argnames=("label", "group"))
def _matrix(
    array: Named, label: str, bits: Float[Tensor, ""], group: int | None
) -> pz.nx.NamedArray:
    """A parameter, rounded along the axes that it sums over."""
    axes, inputs = list(array.named_shape), summed(label)
    outputs = [axis for axis in axes if axis not in inputs]
    value = array.unwrap(*outputs, *inputs)
    flat = value.reshape(*value.shape[: len(outputs)], -1)
    new = round_trip(flat, bits, group).reshape(value.shape)
    return pz.nx.wrap(new).tag(*outputs, *inputs).order_as(*axes)
