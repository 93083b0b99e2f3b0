"""The paper's soft prompt: an adapter that attends from the embeddings (method §5).

    x  <-  x + MHA(W x, K, V)

x is what enters the first layer, K and V are as many learned vectors each, W a learned
matrix, and MHA multi-head attention with one head and no bias:

    MHA(q, k, v) = softmax((q A)(k B)^T / sqrt(d)) (v C) D

All of W, K, V, A, B, C, D are learned; after each step the rows of K and of V are cut
to norm 6. They begin as PyTorch begins such layers: K and V Kaiming-uniform, A, B and C
Xavier-uniform as one matrix, W and D uniform within 1/sqrt(d).
"""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mu_jax.attacks.soft_prompt import SoftPrompt, Trained
from mu_jax.model.precision import EXACT
from mu_jax.model.specs import Spec


@dataclasses.dataclass(frozen=True)
class SoftAdapter(SoftPrompt):
    """Adam, clipped, on an adapter at the embeddings, the model frozen.

    Attributes:
      length: the rows of K and of V.
      norm: the largest norm of a row.
    """

    length: int = 15
    rate: float = 1e-3
    norm: float = 6.0

    way: ClassVar[str] = "keys and values of an adapter at the embeddings"

    @classmethod
    def paper(cls) -> "SoftAdapter":
        """The paper's attack; without its weight decay, which moves nothing here."""
        return cls(rate=1e-5, steps=128, score_at=(64, 128), batch=16, draws=4)

    def tokens(
        self, spec: Spec, rng: np.random.Generator
    ) -> Int[np.ndarray, " length"]:
        """None: the prompt stays as it is."""
        return np.zeros(0, np.int32)

    def variables(self, spec: Spec, rng: np.random.Generator) -> Trained:
        """W, K, V, A, B, C, D as they begin."""
        d = spec.embedding
        square, rows = (d, d), (self.length, d)
        bounds = {
            "W": (square, d**-0.5),
            "K": (rows, math.sqrt(6 / d)),
            "V": (rows, math.sqrt(6 / d)),
            **dict.fromkeys("ABC", (square, math.sqrt(6 / (4 * d)))),
            "D": (square, d**-0.5),
        }
        return {
            k: jnp.asarray(rng.uniform(-bound, bound, shape), jnp.float32)
            for k, (shape, bound) in bounds.items()
        }

    def shift(
        self, trained: Trained, entering: Float[Array, "batch seq embedding"]
    ) -> Float[Array, "batch seq embedding"]:
        """MHA(W x, K, V)."""
        t, dot = trained, functools.partial(jnp.matmul, precision=EXACT)
        query = dot(dot(entering.astype(jnp.float32), t["W"]), t["A"])
        key, value = dot(t["K"], t["B"]), dot(t["V"], t["C"])
        near = dot(query, key.T) * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(near, axis=-1)
        return dot(dot(weights, value), t["D"]).astype(entering.dtype)

    def project(self, trained: Trained) -> Trained:
        """The rows of K and V within `norm`."""

        def cut(a):
            length = jnp.linalg.norm(a, axis=1, keepdims=True)
            return a * jnp.minimum(1, self.norm / jnp.maximum(length, self.norm))

        return {k: cut(a) if k in "KV" else a for k, a in trained.items()}
