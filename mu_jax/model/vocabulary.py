"""The two ends of the network that know tokens: embedding and unembedding.

In Gemma they are one table, and what enters is scaled by sqrt(embedding). Gemma 2 caps
its logits.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from penzai import pz

from mu_jax.devices.sharding import LOGITS, Layout
from mu_jax.model.border import cut
from mu_jax.model.params import Params
from mu_jax.model.specs import Spec
from mu_jax.types import Tensor


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens to what enters the first layer, and the final-normed stream to logits."""

    spec: Spec
    layout: Layout | None

    def embed(
        self, params: Params, tokens: Int[Tensor, "*batch seq"]
    ) -> pz.nx.NamedArray:
        """{batch?, seq, embedding} the table's rows, in Gemma scaled."""
        named = pz.nx.wrap(tokens).tag(*("batch", "seq")[-tokens.ndim :])
        x = pz.nn.EmbeddingLookup(_table(params))(named)
        if self.layout:
            x = self.layout.constrain(x)
        if not self.spec.scaled_embeddings:
            return x
        return x * jnp.sqrt(self.spec.embedding).astype(x.dtype)

    def logits(
        self, params: Params, stream: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """Of every token; on a mesh, the devices share the rows and the tokens."""
        unembed = functools.partial(self._capped, "...e,ve->...v")
        if self.layout is None:
            return unembed(stream, _unembedding(params))
        where, axes = stream.shape[:-1], ("0", "vocabulary")
        rows = self.layout.filled(stream.reshape(-1, stream.shape[-1]), rules=LOGITS)
        named = pz.nx.wrap(unembed(rows, _unembedding(params))).tag(*axes)
        logits = self.layout.constrain(named, LOGITS).unwrap(*axes)
        return cut(logits, math.prod(where)).reshape(*where, -1)

    def logits_of(
        self,
        params: Params,
        stream: Float[Array, "*cell batch embedding"],
        tokens: Int[Tensor, "batch option"],
    ) -> Float[Array, "*cell batch option"]:
        """Of a few tokens of each row."""
        chosen = _unembedding(params)[tokens]
        return self._capped("...be,boe->...bo", stream, chosen)

    def _capped(self, subscripts: str, stream: Array, table: Array) -> Array:
        """Logits, summed up in float32 and not rounded: their differences are small."""
        wide = jnp.promote_types(stream.dtype, jnp.float32)
        found = jnp.einsum(subscripts, stream, table, preferred_element_type=wide)
        cap = self.spec.final_softcap
        return jnp.tanh(found / cap) * cap if cap else found


def _unembedding(params: Params) -> Float[Array, "vocabulary embedding"]:
    """The table that turns the stream into logits; where tied, the embedding table."""
    table = params.get("unembedder", params["embedder"])
    return table.unwrap("vocabulary", "embedding")


def _table(params: Params) -> pz.nn.EmbeddingTable:
    value = pz.ParameterValue(value=params["embedder"], label="embedder", metadata={})
    return pz.nn.EmbeddingTable(value, "vocabulary")
