"""The rotary embedding that a `config.json` describes, in either spelling.

`rope_theta` with `rope_scaling`, as checkpoints were published, or `rope_parameters`,
as transformers 5 writes; Gemma 3 has one for local layers and one for global ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mu_jax.checkpoints.fields import Fields
from mu_jax.model.specs import GLOBAL_WAVELENGTH, LOCAL_WAVELENGTH, RopeStretch


class Rope(NamedTuple):
    """What positions turn by."""

    wavelength: float
    scale: float
    stretch: RopeStretch | None = None


def same(fields: Fields, *, llama: bool = False) -> Rope:
    """The rotary embedding of all layers alike (Gemma 1 and 2, Llama)."""
    known = ("default", "linear", *(("llama3",) if llama else ()))
    return _rope(fields, _given(fields), known, LOCAL_WAVELENGTH)


def both(fields: Fields) -> tuple[Rope, Rope]:
    """Those of local and of global layers (Gemma 3)."""
    known = ("default", "linear")
    new = fields.values.get("rope_parameters")
    if isinstance(new, Mapping) and "full_attention" in new:
        near, far = new.get("sliding_attention") or {}, new["full_attention"]
    else:
        near, far = {}, _given(fields)
        if fields.has("rope_local_base_freq"):
            near = {"rope_theta": fields.get("rope_local_base_freq")}
    return (
        _rope(fields, near, known, LOCAL_WAVELENGTH),
        _rope(fields, far, known, GLOBAL_WAVELENGTH),
    )


def _given(fields: Fields) -> Any:
    """One rotary embedding in today's keys."""
    if fields.has("rope_parameters"):
        return fields.get("rope_parameters")
    scaling = fields.get("rope_scaling", {})
    if isinstance(scaling, Mapping) and fields.has("rope_theta"):
        return {"rope_theta": fields.get("rope_theta"), **scaling}
    return scaling


def _rope(
    fields: Fields, given: Any, known: tuple[str, ...], wavelength: float
) -> Rope:
    if not isinstance(given, Mapping):
        raise fields.wrong("rope_parameters", given, "an object")
    rope = fields.inside({"rope_type": given.get("type", "default"), **given})
    for part in (fields, rope):
        part.choice("partial_rotary_factor", (1,), 1)
    kind = rope.choice("rope_type", known, "default")
    return Rope(
        rope.number("rope_theta", wavelength),
        rope.number("factor") if kind == "linear" else 1.0,
        _stretch(rope) if kind == "llama3" else None,
    )


def _stretch(rope: Fields) -> RopeStretch:
    found = RopeStretch(
        factor=rope.number("factor"),
        low=rope.number("low_freq_factor"),
        high=rope.number("high_freq_factor"),
        context=rope.count("original_max_position_embeddings"),
    )
    if found.low >= found.high:
        raise rope.wrong("low_freq_factor", found.low, f"less than {found.high}")
    return found
