"""Settings as JSON: what cannot be read again is refused before anything is made."""

import pytest

from mu_jax.errors import UserError
from mu_jax.runs import own
from mu_jax.runs.records import decode, encode, keepable

TEXT = """
import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nowhere import Unknown


class Colour(enum.Enum):
    RED = 1


class Word(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Mine:
    x: HINT = dataclasses.field(default_factory=lambda: VALUE)
    double: int = dataclasses.field(init=False, default=2)
"""


def made(folder, hint, value):
    path = folder / "mine.py"
    path.write_text(TEXT.replace("HINT", hint).replace("VALUE", value))
    return own.module(path).Mine()


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        ("tuple[int, ...]", "(1, 2)"),
        ("Sequence[float]", "(1, 2.5)"),
        ("dict[str, float]", "{'a': 1.0}"),
        ("float | None", "None"),
    ],
)
def test_what_json_has_is_kept(tmp_path, hint, value):
    mine = made(tmp_path, hint, value)
    keepable(mine, "mine")
    assert decode(encode(mine)) == mine


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        ("Any", "Colour.RED"),
        ("Word", "Word.RED"),
        ("Any", "Path('x')"),
        ("Any", "{1, 2}"),
        ("Any", "np.zeros(2)"),
        ("Any", "len"),
        ("Any", "int"),
        ("list[int]", "[1, 2]"),
        ("dict[int, float]", "{1: 2.0}"),
        ("Any", "{1: 2.0}"),
        ("float", "float('nan')"),
        ("int", "'one'"),
        ("'Unknown'", "1"),
    ],
)
def test_what_a_run_could_not_read_again_is_one_line(tmp_path, hint, value):
    mine = made(tmp_path, hint, value)
    with pytest.raises(UserError, match="which a run cannot keep"):
        keepable(mine, "mine")
