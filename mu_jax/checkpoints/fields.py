"""What an untrusted file says of itself, checked value by value."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mu_jax.errors import UserError

_LARGEST = 1 << 24
LAYERS = 1024
"""More layers than any model has."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """Named values; those that are absent, of another type or absurd raise UserError.

    Attributes:
      where: the file, for messages.
      prefix: stands before every key.
      remedy: what to do about a wrong value.
    """

    where: str
    values: Mapping[str, Any]
    prefix: str = ""
    remedy: str = ""

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(self.prefix + key)
        value = default if value is None else value
        if value is None:
            raise UserError(
                f"{self.where} lacks {self.prefix}{key}",
                "a whole description of the model",
                self.remedy,
            )
        return value

    def has(self, key: str) -> bool:
        return self.values.get(self.prefix + key) is not None

    def count(self, key: str, default: int | None = None, most: int = _LARGEST) -> int:
        """A number of something, from 1."""
        value = self.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self.wrong(key, value, f"a number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.wrong(key, value, "a positive number")
        return float(value)

    def choice(self, key: str, known: tuple, default: Any = None) -> Any:
        """One of the known values."""
        value = self.get(key, default)
        if value not in known:
            raise self.wrong(key, value, " or ".join(map(str, known)))
        return value

    def inside(self, values: Mapping[str, Any]) -> "Fields":
        """The same checks on an object that stands inside this one."""
        return dataclasses.replace(self, values=values)

    def wrong(self, key: str, value: Any, expected: str) -> UserError:
        return UserError(
            f"{self.where}: {self.prefix}{key} is {repr(value)[:60]}",
            expected,
            self.remedy,
        )
