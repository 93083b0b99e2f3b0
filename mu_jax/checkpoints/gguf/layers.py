"""What differs from layer to layer in a GGUF file: windows and rotary wavelengths.

    attention.sliding_window_pattern    n: every n-th layer is global; or a list that
                                        says of each layer whether it is local
    rope.freq_base, rope.global.freq_base       of global layers, or of all
    rope.freq_base_swa, rope.local.freq_base    of local layers

What a file does not say is as in every model of its architecture.
"""

import dataclasses
from typing import NamedTuple

from mu_jax.checkpoints.fields import Fields
from mu_jax.model.specs import Spec

_PATTERN = "attention.sliding_window_pattern"
_FAR = ("rope.freq_base", "rope.global.freq_base")
_NEAR = ("rope.freq_base_swa", "rope.local.freq_base")
KEYS = (_PATTERN, *_FAR, *_NEAR)


class Rope(NamedTuple):
    """The rotary embedding of a kind of layer, as in `Spec`."""

    wavelength: float
    scale: float


def varied(base: Spec, at: Fields, window: int, far: Rope, near: Rope) -> Spec:
    """`base` with the windows and wavelengths that a file gives its layers.

    Args:
      window: of local layers.
      far, near: of global and of local layers, where the file gives no wavelength.

    Raises:
      UserError: a pattern of another form or length, or two keys that disagree.
    """
    local = _local(base, at)
    far = far._replace(wavelength=_wavelength(at, _FAR, far.wavelength))
    near = near._replace(wavelength=_wavelength(at, _NEAR, near.wavelength))
    ropes = [near if here else far for here in local]
    return dataclasses.replace(
        base,
        windows=tuple(window if here else None for here in local),
        wavelengths=tuple(rope.wavelength for rope in ropes),
        rope_scales=tuple(rope.scale for rope in ropes),
    )


def _local(base: Spec, at: Fields) -> list[bool]:
    """Of every layer, whether it sees a window only; by default as `base` has it."""
    if not at.has(_PATTERN):
        return [window is not None for window in base.windows]
    found = at.get(_PATTERN)
    if not isinstance(found, list):
        every = at.count(_PATTERN)
        return [bool((i + 1) % every) for i in range(base.layers)]
    if len(found) != base.layers or any(x not in (0, 1) for x in found):
        raise at.wrong(_PATTERN, found, f"yes or no for each of {base.layers} layers")
    return [bool(x) for x in found]


def _wavelength(at: Fields, keys: tuple[str, ...], default: float) -> float:
    """The one that any of the keys gives."""
    given = {key: at.number(key) for key in keys if at.has(key)}
    if len(set(given.values())) > 1:
        first, second = given
        raise at.wrong(second, given[second], f"{given[first]}, as {first} has it")
    return next(iter(given.values()), default)
