"""The shape of a network, and what the networks of each family share.

A `Spec` is all that distinguishes one Gemma, or Llama, from another. What differs from
layer to layer (window, RoPE wavelength and scale) is a tuple with one entry a layer:
data for the scan, not structure.
"""

import dataclasses

LOCAL_WAVELENGTH = 10_000.0
GLOBAL_WAVELENGTH = 1_000_000.0


@dataclasses.dataclass(frozen=True)
class RopeStretch:
    """How Llama 3.1 reaches a longer context than it was pretrained for.

    Frequencies with a wavelength over `context / low` tokens are divided by `factor`,
    those under `context / high` kept, and those between mixed linearly.
    """

    factor: float
    low: float
    high: float
    context: int


@dataclasses.dataclass(frozen=True)
class Spec:
    """The shape of a decoder; hashable, so it can be a static argument of `jit`.

    Attributes:
      head_groups: key-value heads. MHA: as many as heads. MQA: one.
      query_heads: query heads of each group.
      windows: per layer, how many tokens back (self included) it sees; None: all.
      wavelengths, rope_scales: per layer, of the rotary embedding.
      query_scale: what queries are multiplied by before meeting the keys.
      context: the longest sequence the network was trained for, in tokens.
      activation: of the MLP's gate, `gelu` (tanh approximation) or `silu`.
      tied: whether the unembedding is the embedding table.
      scaled_embeddings: whether embeddings are multiplied by sqrt(embedding).
      rope_stretch: of all rotary frequencies alike; None: as they are.
    """

    name: str
    layers: int
    vocabulary: int
    embedding: int
    neurons: int
    head_groups: int
    query_heads: int
    projection: int
    windows: tuple[int | None, ...]
    wavelengths: tuple[float, ...]
    rope_scales: tuple[float, ...]
    query_scale: float
    context: int
    qk_norm: bool = False
    post_norms: bool = False
    attention_softcap: float | None = None
    final_softcap: float | None = None
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    tied: bool = True
    scaled_embeddings: bool = True
    rope_stretch: RopeStretch | None = None

    @property
    def heads(self) -> int:
        return self.head_groups * self.query_heads


def gemma1(
    name: str,
    *,
    layers: int,
    embedding: int,
    neurons: int,
    heads: int,
    kv_heads: int,
    projection: int = 256,
    vocabulary: int = 256_128,
    context: int = 8192,
) -> Spec:
    """Gemma 1: every layer global, no norm after a branch, no caps."""
    return Spec(
        name=name,
        layers=layers,
        vocabulary=vocabulary,
        embedding=embedding,
        neurons=neurons,
        head_groups=kv_heads,
        query_heads=heads // kv_heads,
        projection=projection,
        windows=(None,) * layers,
        wavelengths=(LOCAL_WAVELENGTH,) * layers,
        rope_scales=(1.0,) * layers,
        query_scale=projection**-0.5,
        context=context,
    )


def gemma2(
    name: str,
    *,
    layers: int,
    embedding: int,
    neurons: int,
    heads: int,
    kv_heads: int,
    projection: int = 256,
    vocabulary: int = 256_128,
    context: int = 8192,
    window: int = 4096,
    query_scale: float | None = None,
) -> Spec:
    """Gemma 2: local and global layers in turn, post-norms, both soft caps."""
    base = gemma1(
        name,
        layers=layers,
        embedding=embedding,
        neurons=neurons,
        heads=heads,
        kv_heads=kv_heads,
        projection=projection,
        vocabulary=vocabulary,
        context=context,
    )
    return dataclasses.replace(
        base,
        windows=tuple(window if i % 2 == 0 else None for i in range(layers)),
        post_norms=True,
        attention_softcap=50.0,
        final_softcap=30.0,
        query_scale=query_scale or base.query_scale,
    )


def gemma3(
    name: str,
    *,
    layers: int,
    embedding: int,
    neurons: int,
    heads: int,
    kv_heads: int,
    projection: int = 256,
    vocabulary: int = 262_144,
    context: int = 131_072,
    window: int = 1024,
    global_scale: float = 8.0,
    query_scale: float | None = None,
) -> Spec:
    """Gemma 3: every sixth layer global with its own wavelength, norms on q and k."""
    base = gemma1(
        name,
        layers=layers,
        embedding=embedding,
        neurons=neurons,
        heads=heads,
        kv_heads=kv_heads,
        projection=projection,
        vocabulary=vocabulary,
        context=context,
    )
    wide = [i % 6 == 5 for i in range(layers)]
    return dataclasses.replace(
        base,
        windows=tuple(None if w else window for w in wide),
        wavelengths=tuple(GLOBAL_WAVELENGTH if w else LOCAL_WAVELENGTH for w in wide),
        rope_scales=tuple(global_scale if w else 1.0 for w in wide),
        post_norms=True,
        qk_norm=True,
        query_scale=query_scale or base.query_scale,
    )


def llama3(
    name: str,
    *,
    layers: int,
    embedding: int,
    neurons: int,
    heads: int,
    kv_heads: int,
    projection: int = 128,
    vocabulary: int = 128_256,
    context: int = 8192,
    wavelength: float = 500_000.0,
    stretch: RopeStretch | None = None,
    tied: bool = False,
    norm_epsilon: float = 1e-5,
) -> Spec:
    """Llama 3 (and SmolLM2): Gemma 1's blocks with SiLU, embeddings as they are."""
    base = gemma1(
        name,
        layers=layers,
        embedding=embedding,
        neurons=neurons,
        heads=heads,
        kv_heads=kv_heads,
        projection=projection,
        vocabulary=vocabulary,
        context=context,
    )
    return dataclasses.replace(
        base,
        wavelengths=(wavelength,) * layers,
        rope_stretch=stretch,
        activation="silu",
        tied=tied,
        scaled_embeddings=False,
        norm_epsilon=norm_epsilon,
    )


STRETCHED = RopeStretch(factor=8.0, low=1.0, high=4.0, context=8192)
"""That of Llama 3.1."""
