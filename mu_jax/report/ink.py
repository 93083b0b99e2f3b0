"""Colours of pictures."""

from collections.abc import Iterable

from mu_jax.types import UNEDITED

INK = ("#1f5fa8", "#d1622b", "#3a8f5c", "#8a4fa3", "#b8325a", "#7a5c2e", "#2a9d9d")
_GREY = "#8c8c8c"


def ink(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model, the same in every picture; grey before any edit."""
    edited = [model for model in models if model != UNEDITED]
    colors = {model: INK[i % len(INK)] for i, model in enumerate(edited)}
    return {**colors, UNEDITED: _GREY}
