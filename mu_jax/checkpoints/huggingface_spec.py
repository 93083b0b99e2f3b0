"""Hugging Face's `config.json` to a spec: Gemma 1, 2 and 3, and Llama 3.

Both spellings of the rotary embedding are read: `rope_theta` with `rope_scaling`, as
checkpoints were published, and `rope_parameters`, as transformers 5 writes. Published
multimodal configs leave out what equals the defaults of transformers, so those are
known here.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mu_jax.errors import UserError
from mu_jax.model.specs import SPECS, RopeStretch, Spec, gemma1, gemma2, gemma3, llama3

TYPES = ("gemma", "gemma2", "gemma3_text", "gemma3", "llama")

_GEMMA = {"head_dim": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {**_GEMMA, "max_position_embeddings": 8192, "vocab_size": 256_000},
    "gemma2": {
        **_GEMMA,
        "vocab_size": 256_000,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_GEMMA,
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    "llama": {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
}
_ACTIVATIONS = {"gemma": ("gelu", "gelu_pytorch_tanh"), "llama": ("silu",)}
"""By type, else the tanh approximation alone. Gemma 1 was published as `gelu` and is
run with that approximation everywhere."""

_LARGEST = 1 << 24
_SIZES = {"num_hidden_layers": 1024}


def spec(config: Mapping[str, Any], name: str) -> Spec:
    """The spec that a `config.json` describes, under its published name if it has one.

    Raises:
      UserError: another kind of model, a missing or absurd value, or a feature that
        the network does not have; each is named.
    """
    kind = config.get("model_type")
    if kind not in TYPES:
        raise UserError(
            f"{name} has the model_type {kind!r}",
            f"one of {', '.join(TYPES)}",
            "take a Gemma 1, 2 or 3, or a Llama 3",
        )
    if kind == "gemma3":
        inner = config.get("text_config")
        if not isinstance(inner, Mapping):
            raise UserError(f"{name}: config.json has no text_config", "a Gemma 3")
        config, kind = inner, "gemma3_text"
    fields = _Fields(name, kind, {**_DEFAULTS[kind], **_given(config)})
    fields.refuse_features()
    return published(fields.llama() if kind == "llama" else fields.gemma())


def published(found: Spec) -> Spec:
    """The row of the table of specs that differs in name only, or `found` itself."""
    for row in SPECS.values():
        if dataclasses.replace(found, name=row.name) == row:
            return row
    return found


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says; a null may only stand where it means `none`."""
    empty = ("attn_logit_softcapping", "final_logit_softcapping")
    return {k: v for k, v in config.items() if v is not None or k in empty}


@dataclasses.dataclass(frozen=True)
class _Fields:
    """The values of one config, checked as they are asked for."""

    name: str
    kind: str
    values: Mapping[str, Any]

    def size(self, key: str) -> int:
        """A count of something, from 1."""
        value, most = self.get(key), _SIZES.get(key, _LARGEST)
        if type(value) is not int or not 1 <= value <= most:
            raise self.wrong(key, value, f"a number from 1 to {most}")
        return value

    def number(self, key: str, values: Mapping[str, Any] | None = None) -> float:
        """A positive number."""
        value = self.get(key, values)
        real = type(value) in (int, float) and math.isfinite(value)
        if not real or value <= 0:
            raise self.wrong(key, value, "a positive number")
        return float(value)

    def get(self, key: str, values: Mapping[str, Any] | None = None) -> Any:
        values = self.values if values is None else values
        if key not in values:
            raise UserError(
                f"{self.name}: config.json lacks {key}",
                f"the config of a {self.kind}",
                "fetch the checkpoint's own config.json",
            )
        return values[key]

    def wrong(self, key: str, value: Any, expected: str) -> UserError:
        return UserError(
            f"{self.name}: {key} in config.json is {repr(value)[:60]}",
            expected,
            "fetch the checkpoint's own config.json, or take another model",
        )

    def refuse_features(self) -> None:
        """Raises UserError for what the network cannot do."""
        for key in ("attention_bias", "mlp_bias", "use_bidirectional_attention"):
            if self.values.get(key):
                raise self.wrong(key, self.values[key], "false")
        wanted = _ACTIVATIONS.get(self.kind, ("gelu_pytorch_tanh",))
        for key in ("hidden_act", "hidden_activation"):
            value = self.values.get(key, wanted[0])
            if value not in wanted and not (self.kind == "gemma" and value == "gelu"):
                raise self.wrong(key, value, " or ".join(wanted))
        if self.kind != "llama" and not self.values["tie_word_embeddings"]:
            raise self.wrong("tie_word_embeddings", False, "true in a Gemma")

    def sizes(self) -> dict[str, Any]:
        """What every builder of specs takes."""
        heads = self.size("num_attention_heads")
        groups = heads
        if "num_key_value_heads" in self.values:
            groups = self.size("num_key_value_heads")
        embedding = self.size("hidden_size")
        if heads % groups:
            raise self.wrong("num_key_value_heads", groups, f"a divisor of {heads}")
        derived = "head_dim" not in self.values
        return {
            "layers": self.size("num_hidden_layers"),
            "embedding": embedding,
            "neurons": self.size("intermediate_size"),
            "heads": heads,
            "kv_heads": groups,
            "projection": embedding // heads if derived else self.size("head_dim"),
            "vocabulary": self.size("vocab_size"),
            "context": self.size("max_position_embeddings"),
        }

    def llama(self) -> Spec:
        rope = self.rope()
        stretch = None
        if rope["rope_type"] == "llama3":
            stretch = RopeStretch(
                factor=self.number("factor", rope),
                low=self.number("low_freq_factor", rope),
                high=self.number("high_freq_factor", rope),
                context=int(self.number("original_max_position_embeddings", rope)),
            )
            if stretch.low >= stretch.high:
                raise self.wrong("low_freq_factor", stretch.low, "less than the high")
        wavelength, scale = self.turns(rope, 1e4)
        base = llama3(
            self.name,
            **self.sizes(),
            wavelength=wavelength,
            stretch=stretch,
            tied=bool(self.values["tie_word_embeddings"]),
            norm_epsilon=self.number("rms_norm_eps"),
        )
        return dataclasses.replace(base, rope_scales=(scale,) * base.layers)

    def gemma(self) -> Spec:
        build = {"gemma": gemma1, "gemma2": gemma2, "gemma3_text": gemma3}[self.kind]
        base = build(self.name, **self.sizes())
        local, everywhere = self.ropes()
        windows = self.windows(base) if self.kind != "gemma" else base.windows
        ropes = [local if window else everywhere for window in windows]
        base = dataclasses.replace(
            base,
            windows=windows,
            wavelengths=tuple(wavelength for wavelength, _ in ropes),
            rope_scales=tuple(scale for _, scale in ropes),
            norm_epsilon=self.number("rms_norm_eps"),
        )
        if self.kind == "gemma":
            return base
        return dataclasses.replace(
            base,
            query_scale=self.number("query_pre_attn_scalar") ** -0.5,
            attention_softcap=self.softcap("attn_logit_softcapping"),
            final_softcap=self.softcap("final_logit_softcapping"),
        )

    def softcap(self, key: str) -> float | None:
        return None if self.values.get(key) is None else self.number(key)

    def windows(self, base: Spec) -> tuple[int | None, ...]:
        """Per layer, from `layer_types` or from the older `sliding_window_pattern`."""
        window = self.size("sliding_window")
        if "layer_types" in self.values:
            kinds = self.values["layer_types"]
            known = ("sliding_attention", "full_attention")
            if not isinstance(kinds, list) or len(kinds) != base.layers:
                raise self.wrong("layer_types", kinds, f"one for {base.layers} layers")
            for kind in kinds:
                if kind not in known:
                    raise self.wrong("layer_types", kind, " or ".join(known))
            return tuple(window if kind == known[0] else None for kind in kinds)
        keys = ("sliding_window_pattern", "_sliding_window_pattern")
        key = next((k for k in keys if k in self.values), None)
        every = self.size(key) if key else {"gemma2": 2}.get(self.kind, 6)
        return tuple(window if (i + 1) % every else None for i in range(base.layers))

    def ropes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(wavelength, scale) of local layers, and of global ones."""
        if self.kind != "gemma3_text":
            rope = self.rope()
            both = self.turns(rope, 1e4)
            return both, both
        new = self.values.get("rope_parameters")
        if isinstance(new, Mapping) and "full_attention" in new:
            parts = [new.get("sliding_attention"), new["full_attention"]]
            local, everywhere = (self.rope(part or {}) for part in parts)
        else:
            local, everywhere = self.rope({}), self.rope()
            if "rope_local_base_freq" in self.values:
                local["rope_theta"] = self.values["rope_local_base_freq"]
        return self.turns(local, 1e4), self.turns(everywhere, 1e6)

    def turns(self, rope: Mapping[str, Any], wavelength: float) -> tuple[float, float]:
        """(wavelength, scale) of one rotary embedding, `wavelength` by default."""
        given = {"rope_theta": wavelength, **rope}
        return self.number("rope_theta", given), self.linear(rope)

    def rope(self, given: Any = None) -> dict[str, Any]:
        """One rotary embedding in today's keys, with a `rope_type`."""
        if given is None:
            given = self.values.get("rope_parameters")
            if given is None:
                given = self.values.get("rope_scaling", {})
                if isinstance(given, Mapping) and "rope_theta" in self.values:
                    given = {"rope_theta": self.values["rope_theta"], **given}
        if not isinstance(given, Mapping):
            raise self.wrong("rope_parameters", given, "an object")
        kind = given.get("rope_type", given.get("type", "default"))
        known = ("default", "linear", *(("llama3",) if self.kind == "llama" else ()))
        if kind not in known:
            raise self.wrong("rope_type", kind, ", ".join(known))
        for values in (given, self.values):
            part = values.get("partial_rotary_factor", 1)
            if part != 1:
                raise self.wrong("partial_rotary_factor", part, "1")
        return {**given, "rope_type": kind}

    def linear(self, rope: Mapping[str, Any]) -> float:
        """What positions are divided by."""
        return self.number("factor", rope) if rope["rope_type"] == "linear" else 1.0
