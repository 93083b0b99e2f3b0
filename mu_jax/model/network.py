"""Tokens to logits: embed, run the stack, unembed; plain arrays at the border.

    network = Network(spec)             # on a mesh: Network(spec, layout)
    stream, reads = network.stream(params, tokens, read=("mlp",))
    logits = network.logits(params, stream[:, -1])

Everything is a pure function of (params, tokens, patch, edited tensors), and `Network`
itself is static: hash and equality are those of its spec, layout and precision.

Rows that fill a batch up for a mesh (`border`) are in nothing that is returned, nor in
a gradient, and no device computes the rows of others.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from mu_jax.devices.sharding import LOGITS, Layout
from mu_jax.model import stack
from mu_jax.model.block import bind, norm
from mu_jax.model.border import AXES, Border, cut
from mu_jax.model.params import Named, Params
from mu_jax.model.precision import Precision, precisely
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Patch
from mu_jax.types import Selection, Tensor


@dataclasses.dataclass(frozen=True)
class Network:
    """The forward pass of one spec, on the devices of a layout (None: on one).

    `precision` is that of all its matrix products, see `precision.py`.
    """

    spec: Spec
    layout: Layout | None = None
    precision: Precision = "highest"

    @property
    def _border(self) -> Border:
        return Border(self.spec, self.layout)

    def whole(self, rows: int) -> int:
        """The rows of a batch that costs no more than one of `rows`; at least those."""
        return rows + (self.layout.filler(rows) if self.layout else 0)

    @precisely
    def stream(
        self,
        params: Params,
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        *,
        prefix: int = 0,
        memory: Params | None = None,
        noise: Float[Tensor, "batch rest embedding"] | None = None,
        patch: Mapping[str, Patch] | None = None,
        shift: Mapping[str, Array] | None = None,
        ablate: Mapping[str, Float[Tensor, "layer embedding"]] | None = None,
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
          memory: what `remember` made of those leading tokens. By default it is made of
            the first row's; made of each row's own, rows may differ there too.
          noise: added to the scaled embeddings.
          patch: kind of site -> Patch; positions count from the end of the prefix.
          shift: kind of site -> what is added there, shaped like what is read; or
            [layer, embedding], the same at all positions behind the prefix.
          ablate: kind of site -> a unit direction a layer that is taken away there, at
            all positions, those of the prefix too; 0 takes nothing.
          read: kinds of sites to return, see `taps.KINDS`.
          selection, edited: tensors that stand in for those in `params`.
          remat: trade time for memory in the backward pass.

        Returns:
          The stream, and what was read: {kind: [layer, batch, rest, ...]}, heads with
          one `head` axis (key and value: one head a group).
        """
        rows, first = len(tokens), tokens[0, :prefix]
        tokens, valid, noise = map(self._border.filled, (tokens, valid, noise))
        x = self._embed(params, tokens[:, prefix:], "batch", "seq")
        if noise is not None:
            x = x + pz.nx.wrap(noise).tag("batch", "seq", "embedding")
        own, keys = _positions(tokens, valid, prefix)
        without: Params = {
            kind: pz.nx.wrap(d).tag("layer", "embedding")
            for kind, d in (ablate or {}).items()
        }
        if memory is None:
            memory = self._remember(params, first, selection, edited, ablate=without)
        x, reads = stack.run(
            self.spec,
            params,
            x,
            positions=own,
            key_positions=keys,
            prefix=self._border.all_filled(memory),
            patch=self._border.patches(patch),
            shift=self._border.tags(shift),
            ablate=without,
            read=read,
            selection=selection,
            edited=edited,
            remat=remat,
            layout=self.layout,
        )
        stream = self._final(params, x).unwrap("batch", "seq", "embedding")
        return cut(stream, rows), {
            kind: cut(self._border.unwrap(kind, array), rows, axis=1)
            for kind, array in reads.items()
        }

    @precisely
    def resume(
        self,
        params: Params,
        entering: Float[Array, "cell batch rest embedding"],
        start: Int[Array, ""],
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        *,
        memory: Params | None = None,
        prefix: int = 0,
        patch: Mapping[str, Patch] | None = None,
    ) -> Float[Array, "cell batch rest embedding"]:
        """The final-normed stream of several runs taken up at layer `start`.

        Below `start` nothing differs from a run already made, whose stream entering
        that layer is given; so the layers below are not run again. `start` may be
        traced, and one program serves every layer. No reverse-mode derivatives.

        Args:
          entering: the stream that enters layer `start`, one for each of the cells.
          tokens, valid: of the rows, the same for all cells.
          memory: what `remember` made of the prefix.
          patch: kind of site -> Patch, with weights [layer, cell, batch, ...].
        """
        rows = len(tokens)
        tokens, valid = map(self._border.filled, (tokens, valid))
        own, keys = _positions(tokens, valid, prefix)
        axes = ("cell", "batch", "seq", "embedding")
        entering = self._border.filled(entering, 1)
        x = stack.resume(
            self.spec,
            params,
            pz.nx.wrap(entering).tag(*axes),
            start,
            positions=own,
            key_positions=keys,
            prefix=self._border.all_filled(memory),
            patch=self._border.patches(patch),
            layout=self.layout,
        )
        return cut(self._final(params, x).unwrap(*axes), rows, axis=1)

    @precisely
    def extend(
        self,
        params: Params,
        tokens: Int[Array, "batch new"],
        positions: Int[Array, "batch new"],
        memory: Mapping[str, Array],
        places: Int[Array, "batch slot"],
    ) -> tuple[Float[Array, "batch new embedding"], dict[str, Array]]:
        """The final-normed stream of further tokens, behind those remembered.

        Args:
          positions: of the new tokens.
          memory: keys and values of the tokens before them, in any order of slots:
            {"key", "value"} to [layer, batch, slot, group, projection].
          places: the position of the token in each slot; -1: the slot is empty.

        Returns:
          The stream, and the keys and values of the new tokens.
        """
        name = lambda a: pz.nx.wrap(a).tag("batch", "seq")
        rows = len(tokens)
        filled = map(self._border.filled, (tokens, positions, places))
        tokens, positions, places = filled
        x, reads = stack.run(
            self.spec,
            params,
            self._embed(params, tokens, "batch", "seq"),
            positions=name(positions),
            key_positions=name(jnp.concatenate([places, positions], axis=1)),
            prefix=self._border.tags(memory),
            read=("key", "value"),
            layout=self.layout,
        )
        stream = self._final(params, x).unwrap("batch", "seq", "embedding")
        return cut(stream, rows), {
            kind: cut(self._border.unwrap(kind, array), rows, axis=1)
            for kind, array in reads.items()
        }

    @precisely
    def read_stream(
        self,
        params: Params,
        kind: str,
        layer: Int[Array, ""],
        entering: Float[Array, "batch rest embedding"],
        tokens: Int[Tensor, "batch seq"],
        valid: Bool[Tensor, "batch seq"],
        prefix: int = 0,
    ) -> Float[Array, "batch rest head projection"]:
        """The queries, keys or values that one layer makes of the stream entering it.

        Keys and values have one head a group.
        """
        own, _ = _positions(tokens, valid, prefix)
        x = pz.nx.wrap(entering).tag("batch", "seq", "embedding")
        y = stack.read_stream(self.spec, params, kind, layer, x, own)
        return self._border.unwrap(kind, y[None].tag("layer"))[0]

    @precisely
    def write_stream(
        self,
        params: Params,
        layer: Int[Array, ""],
        heads: Float[Array, "batch rest head projection"],
    ) -> Float[Array, "batch rest embedding"]:
        """What one layer's heads together add to the stream, post-norm included."""
        z = heads.reshape(*heads.shape[:2], *self._border.groups, -1)
        z = pz.nx.wrap(z).tag("batch", *AXES["head"])
        y = stack.write_stream(self.spec, params, layer, z)
        return y.unwrap("batch", "seq", "embedding")

    @precisely
    def remember(
        self,
        params: Params,
        tokens: Int[Tensor, "*batch prefix"],
        valid: Bool[Tensor, "batch prefix"] | None = None,
    ) -> Params | None:
        """Keys and values of a prefix, for `stream` and `resume`; None if it is empty.

        Of one prefix that all rows share, or of each row's own. Exact where parameters
        are not differentiated.
        """
        return self._remember(params, tokens, None, None, valid)

    @precisely
    def logits(
        self, params: Params, stream: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """The unembedding, of as few positions as the caller gathered; float32.

        `stream` is final-normed, as `stream` and `resume` return it.
        """
        unembed = functools.partial(self._capped, "...e,ve->...v")
        if self.layout is None:
            return unembed(stream, _unembedding(params))
        where, axes = stream.shape[:-1], ("0", "vocabulary")
        rows = self.layout.filled(stream.reshape(-1, stream.shape[-1]), rules=LOGITS)
        named = pz.nx.wrap(unembed(rows, _unembedding(params))).tag(*axes)
        logits = self.layout.constrain(named, LOGITS).unwrap(*axes)
        return cut(logits, math.prod(where)).reshape(*where, -1)

    @precisely
    def logits_of(
        self,
        params: Params,
        stream: Float[Array, "*cell batch embedding"],
        tokens: Int[Tensor, "batch option"],
    ) -> Float[Array, "*cell batch option"]:
        """The logits of a few tokens of each row; the rest are not computed."""
        chosen = _unembedding(params)[tokens]
        return self._capped("...be,boe->...bo", stream, chosen)

    @precisely
    def lens(
        self, params: Params, resid: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """The logits if `resid`, some layer's output, were the last layer's."""
        axes = [*map(str, range(resid.ndim - 1)), "embedding"]
        final = self._final(params, pz.nx.wrap(resid).tag(*axes))
        return self.logits(params, final.unwrap(*axes))

    def _capped(self, subscripts: str, stream: Array, table: Array) -> Array:
        """Logits, summed up in float32 and not rounded: their differences are small."""
        wide = jnp.promote_types(stream.dtype, jnp.float32)
        found = jnp.einsum(subscripts, stream, table, preferred_element_type=wide)
        cap = self.spec.final_softcap
        return jnp.tanh(found / cap) * cap if cap else found

    @precisely
    def embeddings(
        self, params: Params, tokens: Int[Tensor, "batch seq"]
    ) -> Float[Array, "batch seq embedding"]:
        """What enters the first layer: the table's rows, in Gemma scaled."""
        return self._embed(params, tokens, "batch", "seq").unwrap(
            "batch", "seq", "embedding"
        )

    def _final(self, params: Params, x: Named) -> pz.nx.NamedArray:
        final = norm("final_norm", "embedding", self.spec.embedding, self.spec)
        return bind(final, params)(x).astype(params["embedder"].dtype)

    def _embed(self, params: Params, tokens, *axes: str) -> pz.nx.NamedArray:
        x = pz.nn.EmbeddingLookup(_table(params))(pz.nx.wrap(tokens).tag(*axes))
        if self.layout:
            x = self.layout.constrain(x)
        if not self.spec.scaled_embeddings:
            return x
        return x * jnp.sqrt(self.spec.embedding).astype(x.dtype)

    def _remember(self, params, tokens, selection, edited, valid=None, ablate=None):
        """Keys and values {layer, batch?, seq, ...} of a prefix; None if it is empty.

        Recomputed on every call, edited tensors included: a prefix held constant
        would be exact in the forward pass and wrong in the gradient.
        """
        if not tokens.shape[-1]:
            return None
        rows = tokens.shape[0]
        if tokens.ndim == 1:
            positions = keys = pz.nx.wrap(jnp.arange(rows)).tag("seq")
        else:
            tokens, valid = map(self._border.filled, (tokens, valid))
            positions, keys = _positions(tokens, valid, 0)
        _, reads = stack.run(
            self.spec,
            params,
            self._embed(params, tokens, *("batch", "seq")[-tokens.ndim :]),
            positions=positions,
            key_positions=keys,
            ablate=ablate,
            read=("key", "value"),
            selection=selection,
            edited=edited,
            layout=self.layout,
        )
        if tokens.ndim > 1 and len(tokens) > rows:
            cut = lambda a: a[{"batch": pz.slice[:rows]}].order_like(a)
            reads = {kind: cut(array) for kind, array in reads.items()}
        return reads


def _unembedding(params: Params) -> Float[Array, "vocabulary embedding"]:
    """The table that turns the stream into logits; where tied, the embedding table."""
    table = params.get("unembedder", params["embedder"])
    return table.unwrap("vocabulary", "embedding")


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
