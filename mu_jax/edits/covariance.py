"""How an MLP's hidden units vary together over general text: C = E[k k^T].

An edit that is to change what one key k reads out of W, and as little as possible
otherwise, goes along C^-1 k: away from directions in which other text has keys.
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from jaxtyping import Array, Bool, Float, Int

from mu_jax.devices import distributed
from mu_jax.devices.sharding import fetch
from mu_jax.errors import Doubt, UserError
from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.model.params import Params
from mu_jax.model.precision import EXACT
from mu_jax.types import Progress, silent

Moment = Float[np.ndarray, "neurons neurons"]


class Moments(Protocol):
    """Where second moments of one model are kept between edits."""

    def get(self, layer: int, of: str) -> Moment | None:
        """The one kept of a layer, over the text that `of` names; None without one."""

    def put(self, layer: int, of: str, moment: Moment) -> None:
        """Keeps it, in place of what was kept of that layer and text."""


@dataclasses.dataclass(frozen=True)
class Covariance:
    """Second moments of the keys of some layers over general text, layer by layer.

    Every real token counts but BOS, whose keys are like no other token's. A layer is a
    pass over the text of its own: two matrices of neurons^2 numbers, one in float32 and
    one in float64, are all that is held at a time (7.2 GB for the 24,576 of Gemma 7B).

    Attributes:
      tokens: of the text at most so many. The papers take 100 million; where a sample
        is not many times as large as there are neurons, `shrinkage` matters more.
      batch: rows a forward pass.
      shrinkage: s in C_s = (1 - s) C + s (tr C / neurons) 1, which can be inverted.
    """

    tokens: int = 6_000
    batch: int = 8
    shrinkage: float = 0.05

    def __post_init__(self):
        for name in ("tokens", "batch"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"covariance.{name} = {getattr(self, name)}", "at least 1"
                )
        if not 0 < self.shrinkage <= 1:
            raise UserError(
                f"covariance.shrinkage = {self.shrinkage}", "over 0 and at most 1"
            )

    def __call__(
        self,
        model: Model,
        layers: Sequence[int],
        text: Int[np.ndarray, "rows seq"],
        kept: Moments | None = None,
        progress: Progress = silent,
    ) -> Iterator["Inverse"]:
        """The inverse of C_s of each layer in turn; what `kept` lacks is put there."""
        rows = text[: -(-self.tokens // (text.shape[1] - 1))]
        digest = xxhash.xxh3_64_hexdigest(rows.astype(np.int32).tobytes())
        of = f"{rows.shape[0]} x {rows.shape[1]} tokens {digest}"
        count, neurons = rows[:, 1:].size, model.spec.neurons
        if count < neurons:
            warnings.warn(
                Doubt(
                    f"second moments of {neurons} neurons over {count} tokens: most of"
                    f" what they say is the shrinkage of {self.shrinkage:g}; give a"
                    " longer text and raise covariance.tokens"
                ),
                stacklevel=2,
            )
        for layer in layers:
            moment = kept.get(layer, of) if kept else None
            # What one process reads and another does not is computed by all.
            if distributed.agree(moment is None):
                moment = self.moment(model, layer, rows, progress)
                if kept:
                    kept.put(layer, of, moment)
            assert moment is not None
            yield Inverse(self._shrunk(moment))

    def moment(
        self,
        model: Model,
        layer: int,
        text: Int[np.ndarray, "rows seq"],
        progress: Progress = silent,
    ) -> Moment:
        """E[k k^T] of a layer over all tokens of `text` but each row's first.

        Summed in float32: neurons^2 numbers on a device.
        """
        which, total, what = np.int32(layer), None, f"reading keys of layer {layer}"
        real = np.ones(len(text), bool)
        progress(what, 0, len(text))
        for start in range(0, len(text), self.batch):
            part = slice(start, start + self.batch)
            fill = [(0, self.batch - len(text[part]))]
            batch = np.pad(text[part], [*fill, (0, 0)]), np.pad(real[part], fill)
            if model.network.layout:
                batch = model.network.layout.rows(batch)
            sums = _sums(model.network, model.params, which, *batch)
            total = sums if total is None else total + sums
            progress(what, min(start + self.batch, len(text)), len(text))
        count = len(text) * (text.shape[1] - 1)
        return fetch(total) / np.float32(count)

    def _shrunk(self, moment: Moment) -> Float[np.ndarray, "neurons neurons"]:
        wide = moment.astype(np.float64)
        mean = np.trace(moment) / len(moment)
        wide *= 1 - self.shrinkage
        wide[np.diag_indices_from(wide)] += self.shrinkage * mean
        return wide


@functools.partial(jax.jit, static_argnames="network")
def _sums(
    network: Network,
    params: Params,
    layer: Int[Array, ""],
    text: Int[Array, "batch seq"],
    real: Bool[Array, " batch"],
) -> Float[Array, "neurons neurons"]:
    """The sum of k k^T over a batch; rows that are not `real` are filler."""
    _, reads = network.stream(params, text, read=("neuron",))
    keys = reads["neuron"][layer][:, 1:].astype(jnp.float32)
    keys = keys * real[:, None, None].astype(keys.dtype)
    return jnp.einsum("bsn,bsm->nm", keys, keys, precision=EXACT)


class Inverse:
    """C^-1, by Cholesky in float64 on the host: C is badly conditioned."""

    def __init__(self, covariance: Float[np.ndarray, "neurons neurons"]):
        from scipy.linalg import cho_factor

        self._factor = cho_factor(covariance, lower=True, overwrite_a=True)

    def __call__(
        self, keys: Float[np.ndarray, "key neurons"]
    ) -> Float[np.ndarray, "key neurons"]:
        """C^-1 k of each key, in float64."""
        from scipy.linalg import cho_solve

        return cho_solve(self._factor, np.asarray(keys, np.float64).T).T
