"""Dataclasses as JSON's own types, and back: those of mu_jax, and trusted ones."""

import dataclasses
import importlib
import json
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from mu_jax.errors import UserError
from mu_jax.runs import own


def encode(value: Any) -> Any:
    """Dataclasses to dicts with a `class` entry, all else to JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return {
            "class": own.spelled(kind),
            **{name: encode(getattr(value, name)) for name in names},
        }
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`; lists become tuples.

    Raises:
      ValueError: a class that is neither a dataclass of this package nor one of a file
        that is imported (see `own`), or a field that is unknown or not of its type.
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
        kind = own.find(str(value["class"]))
    else:
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            raise ValueError(f"an unknown class {value['class']}") from None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{value['class']} is no record")
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:  # of what is imported for a type checker alone
        raise ValueError(f"{kind.__qualname__}: {error}") from None
    for field, member in fields.items():
        if field in hints and not _fits(member, hints[field]):
            raise ValueError(f"{kind.__qualname__}.{field} is {repr(member)[:60]}")
    return kind(**fields)


def keepable(value: Any, where: str) -> None:
    """Raises UserError for settings that could not be read again, naming the first.

    Settings are what JSON has, and dataclasses, tuples and mappings of them.
    """
    if dataclasses.is_dataclass(value):
        named = [field.name for field in dataclasses.fields(value) if field.init]
        members = {name: getattr(value, name) for name in named}
    else:
        members = value if isinstance(value, dict) else {}
    for name, member in members.items():
        keepable(member, f"{where}.{name}".lstrip("."))
    try:
        if isinstance(value, dict) and not all(isinstance(k, str) for k in value):
            raise TypeError("a name that is no text")
        decode(json.loads(json.dumps(encode(value))))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{where} = {repr(value)[:80]}, which a run cannot keep ({error})",
            "numbers, texts, booleans, None, tuples and dicts by name of them, and"
            " dataclasses of a file's own level, each as its field's annotation says",
            "change the setting, or the annotation",
        ) from None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a decoded value is what the annotation of its field says."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin is Sequence or (origin is tuple and args[-1] is ...):
        return isinstance(value, tuple) and all(_fits(v, args[0]) for v in value)
    if origin is tuple:
        same = isinstance(value, tuple) and len(value) == len(args)
        return same and all(map(_fits, value, args))
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items()
        )
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if isinstance(value, int) and abs(value) >> 64:
        return False
    if hint is float:  # NaN compares with nothing, and would pass every check of range
        return isinstance(value, int | float) and value == value
    return isinstance(hint, type) and not origin and isinstance(value, hint)
