"""Dataclasses of this package as JSON's own types, and back."""

import dataclasses
import importlib
import re
from typing import Any


def encode(value: Any) -> Any:
    """Dataclasses to dicts with a `class` entry, all else to JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {
            "class": f"{kind.__module__}:{kind.__qualname__}",
            **{k: encode(v) for k, v in fields.items()},
        }
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`; lists become tuples.

    Raises:
      ValueError: a class that is not a dataclass of this package, or unknown fields.
    """
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    fields = {k: decode(v) for k, v in value.items() if k != "class"}
    if "class" not in value:
        return fields
    module, _, name = str(value["class"]).partition(":")
    if not re.fullmatch(r"mu_jax(\.[a-z_0-9]+)+", module):
        raise ValueError(
            f"a {value['class']}, which is not of mu_jax: start from its config file"
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(f"an unknown class {value['class']}") from None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{value['class']} is no record")
    return kind(**fields)
