"""Tokens to logits: embed, run the stack, unembed; plain arrays at the border.

    network = Network(spec)
    stream, reads = network.stream(params, tokens, read=("mlp",))
    logits = network.logits(params, stream[:, -1])

Everything is a pure function of (params, tokens, patch, edited tensors), and `Network`
itself is static: hash and equality are those of its spec.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from mu_jax.model import stack
from mu_jax.model.block import bind, norm
from mu_jax.model.params import Named, Params
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Patch
from mu_jax.types import Selection, Tensor

_AXES = {
    "key": ("seq", "head_groups", "projection"),
    "value": ("seq", "head_groups", "projection"),
    "head": ("seq", "head_groups", "query_heads", "projection"),
    "attn": ("seq", "embedding"),
    "mlp": ("seq", "embedding"),
    "resid": ("seq", "embedding"),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """The forward pass of one spec."""

    spec: Spec

    def stream(
        self,
        params: Params,
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        *,
        prefix: int = 0,
        patch: Mapping[str, Patch] | None = None,
        read: tuple[str, ...] = (),
        selection: Selection | None = None,
        edited: Params | None = None,
        remat: bool = False,
    ) -> tuple[Float[Array, "batch rest embedding"], dict[str, Array]]:
        """The residual stream after the last layer and the final norm.

        Args:
          valid: which tokens are real; padding may stand on either side. None: all.
          prefix: how many leading tokens all rows have in common (static). They run
            once instead of once a row, which changes no result; what is returned,
            read and patched then covers the `seq - prefix` tokens behind them.
          patch: kind of site -> Patch; positions count from the end of the prefix.
          read: kinds of sites to return, see `taps.KINDS`.
          selection, edited: tensors that stand in for those in `params`.
          remat: trade time for memory in the backward pass.

        Returns:
          The stream, and what was read: {kind: [layer, batch, rest, ...]}, heads with
          one `head` axis (key and value: one head a group).
        """
        x = self._embed(params, tokens[:, prefix:], "batch", "seq")
        wrapped = {kind: self._wrap(kind, p) for kind, p in (patch or {}).items()}
        own, keys = _positions(tokens, valid, prefix)
        x, reads = stack.run(
            self.spec,
            params,
            x,
            positions=own,
            key_positions=keys,
            prefix=self._remember(params, tokens[0, :prefix], selection, edited),
            patch=wrapped,
            read=read,
            selection=selection,
            edited=edited,
            remat=remat,
        )
        final = norm("final_norm", "embedding", self.spec.embedding, self.spec)
        x = bind(final, params)(x).astype(params["embedder"].dtype)
        return x.unwrap("batch", "seq", "embedding"), {
            kind: self._unwrap(kind, array) for kind, array in reads.items()
        }

    def logits(
        self, params: Params, stream: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """The unembedding, of as few positions as the caller gathered."""
        axes = [str(i) for i in range(stream.ndim - 1)]
        x = pz.nx.wrap(stream).tag(*axes, "embedding")
        y = pz.nn.EmbeddingDecode(_table(params))(x)
        if self.spec.final_softcap:
            y = pz.nn.TanhSoftCap(self.spec.final_softcap)(y)
        return y.unwrap(*axes, "vocabulary")

    def embeddings(
        self, params: Params, tokens: Int[Tensor, "batch seq"]
    ) -> Float[Array, "batch seq embedding"]:
        """What enters the first layer: the table's rows times sqrt(embedding)."""
        return self._embed(params, tokens, "b", "s").unwrap("b", "s", "embedding")

    def _embed(self, params: Params, tokens, *axes: str) -> pz.nx.NamedArray:
        x = pz.nn.EmbeddingLookup(_table(params))(pz.nx.wrap(tokens).tag(*axes))
        return x * jnp.sqrt(self.spec.embedding).astype(x.dtype)

    def _remember(self, params, tokens, selection, edited):
        """Keys and values {layer, seq, ...} of the shared prefix; None if it is empty.

        Recomputed on every call, edited tensors included: a prefix held constant
        would be exact in the forward pass and wrong in the gradient.
        """
        if not tokens.shape[0]:
            return None
        positions = pz.nx.wrap(jnp.arange(tokens.shape[0])).tag("seq")
        _, reads = stack.run(
            self.spec,
            params,
            self._embed(params, tokens, "seq"),
            positions=positions,
            key_positions=positions,
            read=("key", "value"),
            selection=selection,
            edited=edited,
        )
        return reads

    def _wrap(self, kind: str, patch: Patch) -> tuple:
        donor, weight = patch.donor, patch.weight
        names = _AXES[kind]
        if kind == "head":
            groups = (self.spec.head_groups, self.spec.query_heads)
            donor = donor.reshape(*donor.shape[:3], *groups, -1)
            weight = weight.reshape(*weight.shape[:3], *groups)
        weight = pz.nx.wrap(weight).tag("layer", "batch", *names[: weight.ndim - 2])
        return weight, pz.nx.wrap(donor).tag("layer", "batch", *names)

    def _unwrap(self, kind: str, array: Named) -> Array:
        plain = array.unwrap("layer", "batch", *_AXES[kind])
        if kind == "head":
            plain = plain.reshape(*plain.shape[:3], self.spec.heads, -1)
        return plain


def _table(params: Params) -> pz.nn.EmbeddingTable:
    value = pz.ParameterValue(value=params["embedder"], label="embedder", metadata={})
    return pz.nn.EmbeddingTable(value, "vocabulary")


def _positions(tokens, valid, prefix: int):
    """{batch, seq} positions of the tokens behind the prefix, and of all keys.

    A row's positions count its real tokens; keys of padding stand at -1.
    """
    if valid is None:
        valid = jnp.ones(tokens.shape, bool)
    count = jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
    keys = jnp.where(valid, count, -1)
    name = lambda a: pz.nx.wrap(a).tag("batch", "seq")
    return name(count[:, prefix:]), name(keys)


def take_last(
    stream: Float[Array, "batch seq embedding"], last: Int[Tensor, " batch"]
) -> Float[Array, "batch embedding"]:
    """Each row's stream at its position `last` (counted from the start of `stream`)."""
    return jnp.take_along_axis(stream, last[:, None, None], axis=1)[:, 0]


def cross_entropy(
    logits: Float[Array, "*where vocabulary"], target: Int[Tensor, "*where"]
) -> Float[Array, "*where"]:
    """-log p(target), in nats, computed in float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
