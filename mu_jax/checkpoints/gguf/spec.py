"""The metadata of a GGUF file to a spec."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_jax.checkpoints.fields import LAYERS, Fields
from mu_jax.checkpoints.gguf import keys
from mu_jax.checkpoints.gguf.layers import Rope, varied
from mu_jax.errors import UserError
from mu_jax.model.releases import SPECS
from mu_jax.model.specs import (
    GLOBAL_WAVELENGTH,
    LOCAL_WAVELENGTH,
    STRETCHED,
    RopeStretch,
    Spec,
    gemma1,
    gemma2,
    gemma3,
    llama3,
)

ARCHITECTURES = ("gemma", "gemma2", "gemma3", "llama")
_BY_EMBEDDING = {"gemma2.": 46, "gemma3.": 62}
"""Layers of the 27B models, which scale queries by embedding / heads, not projection;
the file does not say so."""


def spec(
    path: Path,
    fields: Mapping[str, Any],
    *,
    tied: bool,
    rope_factors: np.ndarray | None = None,
) -> Spec:
    """The spec that a file's metadata describe, under its published name if it has one.

    Args:
      tied: whether the file has no table of its own for the unembedding.
      rope_factors: [projection / 2] what rotary frequencies are divided by.

    Raises:
      UserError: another architecture, a missing or absurd value, a key that is not
        known or says what the network is not, or rotary factors that are not Llama 3's.
    """
    kind = fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"{path} holds a {str(kind)[:60]!r} model",
            f"the architecture {', '.join(ARCHITECTURES)}",
            "convert a Gemma 1, 2 or 3 text model, or a Llama 3, to GGUF",
        )
    build = {"gemma": _gemma1, "gemma2": _gemma2, "gemma3": _gemma3, "llama": _llama}
    remedy = "take another conversion of the model"
    at = _Fields(str(path), fields, f"{kind}.", remedy)
    found = build[kind](at, tied)
    keys.check(at, found.projection)
    if rope_factors is not None:
        found = dataclasses.replace(
            found, rope_stretch=_stretch(path, found, rope_factors)
        )
    return _published(found)


def _published(found: Spec) -> Spec:
    """The row of the table with these sizes, or `found` itself.

    A file's own name, context and rounding of epsilon do not matter; its vocabulary,
    windows and rotary embedding do.
    """
    free = ("name", "context", "norm_epsilon")
    for row in SPECS.values():
        if dataclasses.replace(found, **{k: getattr(row, k) for k in free}) == row and (
            math.isclose(found.norm_epsilon, row.norm_epsilon, rel_tol=1e-6)
        ):
            return row
    return found


class _Fields(Fields):
    """The values under one architecture."""

    def sizes(self) -> dict[str, Any]:
        """What every builder of specs takes."""
        embedding = self.count("embedding_length")
        heads = self.count("attention.head_count")
        groups = self.count("attention.head_count_kv", heads)
        if heads % groups:
            raise self.wrong("attention.head_count_kv", groups, f"a divisor of {heads}")
        words = self.values.get("tokenizer.ggml.tokens")
        # The size of a head has its own key in Gemma; in Llama it may be the rest.
        derived = embedding // heads if self.prefix == "llama." else None
        return {
            "name": str(self.values.get("general.name", Path(self.where).stem)),
            "layers": self.count("block_count", most=LAYERS),
            "embedding": embedding,
            "neurons": self.count("feed_forward_length"),
            "heads": heads,
            "kv_heads": groups,
            "projection": self.count("attention.key_length", derived),
            "vocabulary": len(words) if isinstance(words, list) else 0,
            "context": self.count("context_length"),
        }

    def epsilon(self, default: float) -> float:
        """Stored as float32: as it was written in decimals."""
        value = self.number("attention.layer_norm_rms_epsilon", default)
        return float(f"{value:.6g}")

    def scale(self) -> float:
        """What positions are divided by."""
        kind = self.choice("rope.scaling.type", ("linear", "none"), "linear")
        return self.number("rope.scaling.factor", 1.0) if kind == "linear" else 1.0

    def query_scale(self, sizes: Mapping[str, Any]) -> float | None:
        if sizes["layers"] != _BY_EMBEDDING.get(self.prefix):
            return None
        return (sizes["embedding"] // sizes["heads"]) ** -0.5

    def cap(self, key: str, default: float) -> float | None:
        """What logits are capped at; 0 is no cap."""
        value = self.get(key, default)
        return None if value == 0 else self.number(key, default)

    def turned(self, base: Spec) -> Spec:
        """`base` with one wavelength and scale for all layers."""
        return dataclasses.replace(
            base,
            wavelengths=(self.number("rope.freq_base", LOCAL_WAVELENGTH),)
            * base.layers,
            rope_scales=(self.scale(),) * base.layers,
        )

    def finished(self, base: Spec) -> Spec:
        """`base` with the epsilon and the caps of the file, where it has them."""
        caps = (base.attention_softcap or 0.0, base.final_softcap or 0.0)
        return dataclasses.replace(
            base,
            norm_epsilon=self.epsilon(base.norm_epsilon),
            attention_softcap=self.cap("attn_logit_softcapping", caps[0]),
            final_softcap=self.cap("final_logit_softcapping", caps[1]),
        )


def _tied(at: _Fields, tied: bool) -> None:
    if not tied:
        raise UserError(
            f"{at.where} has the tensor output.weight",
            "a Gemma, whose unembedding is its embedding table",
            "take another conversion of the model",
        )


def _gemma1(at: _Fields, tied: bool) -> Spec:
    _tied(at, tied)
    return at.finished(at.turned(gemma1(**at.sizes())))


def _gemma2(at: _Fields, tied: bool) -> Spec:
    _tied(at, tied)
    sizes = at.sizes()
    base = gemma2(**sizes, query_scale=at.query_scale(sizes))
    window = at.count("attention.sliding_window", 4096)
    far = Rope(at.number("rope.freq_base", LOCAL_WAVELENGTH), at.scale())
    return at.finished(varied(base, at, window, far, far))


def _gemma3(at: _Fields, tied: bool) -> Spec:
    _tied(at, tied)
    sizes = at.sizes()
    base = gemma3(**sizes, query_scale=at.query_scale(sizes))
    window = at.count("attention.sliding_window")
    far, near = Rope(GLOBAL_WAVELENGTH, at.scale()), Rope(LOCAL_WAVELENGTH, 1.0)
    return at.finished(varied(base, at, window, far, near))


def _llama(at: _Fields, tied: bool) -> Spec:
    sizes = at.sizes()
    return at.finished(at.turned(llama3(**sizes, tied=tied)))


def _stretch(path: Path, base: Spec, factors: np.ndarray) -> RopeStretch:
    """Llama 3's stretch that gives these factors; the file has no more of it."""
    half = base.projection // 2
    if factors.shape == (half,) and np.isfinite(factors).all() and factors.max() > 1:
        found = dataclasses.replace(STRETCHED, factor=float(f"{factors.max():.6g}"))
        frequency = base.wavelengths[0] ** -(np.arange(half) / half)
        turns = found.context * frequency / (2 * np.pi)
        kept = np.clip((turns - found.low) / (found.high - found.low), 0, 1)
        wanted = 1 / (kept + (1 - kept) / found.factor)
        if np.allclose(factors, wanted, rtol=1e-4):
            return found
    raise UserError(
        f"{path}: rope_freqs.weight is not a stretch as in Llama 3.1, 3.2 or 3.3",
        f"factors for a pretrained context of {STRETCHED.context} tokens",
        "take the model as a Hugging Face directory",
    )
