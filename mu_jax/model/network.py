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
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from penzai import pz

from mu_jax.devices.sharding import Layout
from mu_jax.model import stack
from mu_jax.model.block import bind, norm
from mu_jax.model.border import STREAM, Border
from mu_jax.model.params import Named, Params
from mu_jax.model.precision import Precision, precisely
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Patch
from mu_jax.model.vocabulary import Vocabulary
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

    @property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.spec, self.layout)

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
        x = self._vocabulary.embed(params, tokens[:, prefix:])
        if noise is not None:
            x = x + pz.nx.wrap(noise).tag(*STREAM)
        own, keys = self._border.positions(tokens, valid, prefix)
        if memory is None:
            memory = self.remember(
                params, first, ablate=ablate, selection=selection, edited=edited
            )
        x, reads = stack.run(
            self.spec,
            params,
            x,
            positions=own,
            key_positions=keys,
            prefix=self._border.all_filled(memory),
            patch=self._border.patches(patch),
            shift=self._border.tags(shift),
            ablate=self._border.tags(ablate),
            read=read,
            selection=selection,
            edited=edited,
            remat=remat,
            layout=self.layout,
        )
        stream = self._final(params, x)
        return self._border.stream(stream, rows), self._border.reads(reads, rows)

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
        own, keys = self._border.positions(tokens, valid, prefix)
        entering = self._border.filled(entering, 1)
        x = stack.resume(
            self.spec,
            params,
            pz.nx.wrap(entering).tag("cell", *STREAM),
            start,
            positions=own,
            key_positions=keys,
            prefix=self._border.all_filled(memory),
            patch=self._border.patches(patch),
            layout=self.layout,
        )
        return self._border.stream(self._final(params, x), rows, "cell")

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
            self._vocabulary.embed(params, tokens),
            positions=name(positions),
            key_positions=name(jnp.concatenate([places, positions], axis=1)),
            prefix=self._border.tags(memory),
            read=("key", "value"),
            layout=self.layout,
        )
        stream = self._final(params, x)
        return self._border.stream(stream, rows), self._border.reads(reads, rows)

    @precisely
    def remember(
        self,
        params: Params,
        tokens: Int[Tensor, "*batch prefix"],
        valid: Bool[Tensor, "batch prefix"] | None = None,
        *,
        ablate: Mapping[str, Float[Tensor, "layer embedding"]] | None = None,
        selection: Selection | None = None,
        edited: Params | None = None,
    ) -> Params | None:
        """Keys and values {layer, batch?, seq, ...} of a prefix; None if it is empty.

        Of one prefix that all rows share, or of each row's own. `stream` recomputes it
        on every call, edited tensors included: a prefix held constant is exact in the
        forward pass and wrong in the gradient.
        """
        if not tokens.shape[-1]:
            return None
        rows, shared = len(tokens), tokens.ndim == 1
        if not shared:
            tokens, valid = map(self._border.filled, (tokens, valid))
        positions, keys = self._border.positions(tokens, valid)
        _, reads = stack.run(
            self.spec,
            params,
            self._vocabulary.embed(params, tokens),
            positions=positions,
            key_positions=keys,
            ablate=self._border.tags(ablate),
            read=("key", "value"),
            selection=selection,
            edited=edited,
            layout=self.layout,
        )
        return reads if shared else self._border.own(reads, rows)

    @precisely
    def logits(
        self, params: Params, stream: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """The unembedding, of as few positions as the caller gathered; float32.

        `stream` is final-normed, as `stream` and `resume` return it.
        """
        return self._vocabulary.logits(params, stream)

    @precisely
    def logits_of(
        self,
        params: Params,
        stream: Float[Array, "*cell batch embedding"],
        tokens: Int[Tensor, "batch option"],
    ) -> Float[Array, "*cell batch option"]:
        """The logits of a few tokens of each row; the rest are not computed."""
        return self._vocabulary.logits_of(params, stream, tokens)

    @precisely
    def lens(
        self, params: Params, resid: Float[Array, "*where embedding"]
    ) -> Float[Array, "*where vocabulary"]:
        """The logits if `resid`, some layer's output, were the last layer's."""
        axes = [*map(str, range(resid.ndim - 1)), "embedding"]
        final = self._final(params, pz.nx.wrap(resid).tag(*axes))
        return self.logits(params, final.unwrap(*axes))

    @precisely
    def embeddings(
        self, params: Params, tokens: Int[Tensor, "batch seq"]
    ) -> Float[Array, "batch seq embedding"]:
        """What enters the first layer: the table's rows, in Gemma scaled."""
        return self._vocabulary.embed(params, tokens).unwrap(*STREAM)

    def _final(self, params: Params, x: Named) -> pz.nx.NamedArray:
        final = norm("final_norm", "embedding", self.spec.embedding, self.spec)
        return bind(final, params)(x).astype(params["embedder"].dtype)


def take_last(
    stream: Float[Array, "batch seq embedding"], last: Int[Tensor, " batch"]
) -> Float[Array, "batch embedding"]:
    """Each row's stream at its position `last` (counted from the start of `stream`)."""
    return jnp.take_along_axis(stream, last[:, None, None], axis=1)[:, 0]
