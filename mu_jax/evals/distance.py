"""How far an edit moved the weights: ||W' - W|| / ||W||, Frobenius, a layer and tensor.

No units, from 0; higher means farther from the original. A cheap diagnostic, which is
said to predict how well an edit resists relearning (arXiv 2505.22310).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mu_jax.devices.sharding import fetch
from mu_jax.model.model import Model
from mu_jax.types import Row


@dataclasses.dataclass(frozen=True)
class WeightDistance:
    """The distance of every tensor that an edit changed."""

    def __call__(self, model: Model, name: str, original: Model) -> list[Row]:
        """A row a kind of tensor (`prompt` is its label), with one value a changed
        layer; `at` says which. No rows for the same model."""
        rows = []
        for label, old in original.params.items():
            new = model.params[label]
            if new is old or "layer" not in old.named_shape:
                continue
            moved = fetch(_distance(new, old))
            changed = np.flatnonzero(moved)
            if len(changed):
                rows.append(
                    Row.of(
                        moved[changed],
                        model=name,
                        eval="distance",
                        split="weights",
                        prompt=label,
                        metric="distance",
                        at=f"layers={','.join(map(str, changed))}",
                    )
                )
        return rows


@jax.jit
def _distance(new, old) -> Float[Array, " layer"]:
    axes = ["layer", *(axis for axis in old.named_shape if axis != "layer")]
    flat = [
        a.unwrap(*axes).astype(jnp.float32).reshape(old.named_shape["layer"], -1)
        for a in (new, old)
    ]
    size = jnp.linalg.norm(flat[1], axis=1)
    return jnp.linalg.norm(flat[0] - flat[1], axis=1) / size
