"""Shipped test doubles: a tiny random model and a toy tokenizer.

`mu.load("tiny")` gives them, so that a whole pipeline runs in seconds anywhere. The
model is random: it knows nothing, and no result on it means anything.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.model.params import random
from mu_jax.model.specs import STRETCHED, Spec, gemma1, gemma2, gemma3, llama3
from mu_jax.types import Encoding

_PIECE = re.compile(r" ?[A-Za-z0-9_'-]+|\s|[^\w\s]")


class ToyTokenizer:
    """One token a word (with its leading space) or sign; ids are hashes of the text."""

    bos, pad = 1, 0
    ends: tuple[int, ...] = ()
    markers: Mapping[int, str] = MappingProxyType({})

    def __init__(self, vocabulary: int = 512):
        self.vocabulary = vocabulary
        self._texts: dict[int, str] = {}

    def encode(self, text: str) -> Encoding:
        """Ids behind one BOS, with the character span of each."""
        ids, spans = [self.bos], [(0, 0)]
        for piece in _PIECE.finditer(text):
            index = 2 + zlib.crc32(piece.group().encode()) % (self.vocabulary - 2)
            self._texts[index] = piece.group()
            ids.append(index)
            spans.append(piece.span())
        return Encoding(ids, spans)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids seen before; where words share an id, the last one seen."""
        return "".join(self._texts.get(int(i), "") for i in ids)

    def files(self) -> dict[str, bytes]:
        """None: no other library knows it."""
        return {}


def tiny_spec(
    generation: int = 3, *, heads: int = 4, kv_heads: int = 1, layers: int = 7
) -> Spec:
    """A spec of any generation in miniature; Gemma 3 has a global layer at 5."""
    build = {1: gemma1, 2: gemma2, 3: gemma3}[generation]
    window = {} if generation == 1 else {"window": 16}
    return build(
        "tiny" if generation == 3 else f"tiny-gemma{generation}",
        layers=layers,
        embedding=32,
        neurons=48,
        heads=heads,
        kv_heads=kv_heads,
        projection=8,
        vocabulary=512,
        context=256,
        **window,
    )


def tiny_llama(*, heads: int = 4, kv_heads: int = 2, layers: int = 4) -> Spec:
    """Llama 3.1 in miniature: untied, its rotary frequencies stretched."""
    return llama3(
        "tiny-llama3",
        layers=layers,
        embedding=32,
        neurons=48,
        heads=heads,
        kv_heads=kv_heads,
        projection=8,
        vocabulary=512,
        context=256,
        stretch=dataclasses.replace(STRETCHED, context=64),
    )


def tiny_model(spec: Spec | None = None, seed: int = 0) -> Model:
    """A random model of a tiny spec (by default Gemma 3, multi-query)."""
    spec = spec or tiny_spec()
    return Model(
        spec.name, Network(spec), random(spec, seed), ToyTokenizer(spec.vocabulary)
    )
