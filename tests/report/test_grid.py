"""A table's cells: no mean without its interval and its n, in whatever form."""

import dataclasses
import json

import pytest

from mu_jax.report.grid import Grid, plain
from mu_jax.statistics import Estimate

WIDE = Estimate(0.5, 0.25, 0.75, 16)
SMALL = Estimate(0.004, 0.001, 0.01, 16)
LONE = Estimate(0.5, None, None, 1)
SEEDS = Estimate(0.5, 0.25, 0.75, 16, 3)


def grid(*rows, signed=False) -> Grid:
    header = ("model", *(f"m{i}" for i in range(len(rows[0]) - 1)))
    return Grid("A title", "What it is.", header, rows, signed=signed)


def shown(entry, signed=False) -> str:
    (row,) = grid(("flu", entry), signed=signed).cells
    return "; ".join(map(str, row[1]))


def test_n_stands_in_the_title_where_a_whole_column_has_it():
    made = grid(("a", (WIDE,), (WIDE,)), ("b", (WIDE,), (SEEDS,)), ("c", (), (WIDE,)))
    assert made.titles == ("model", "m0 (n=16)", "m1")
    assert [str(row[2][0]) for row in made.cells] == [
        "0.50 [0.25, 0.75] (n=16)",
        "0.50 [0.25, 0.75] (n=16 x 3 seeds)",
        "0.50 [0.25, 0.75] (n=16)",
    ]
    assert [str(row[1][0]) for row in made.cells] == ["0.50 [0.25, 0.75]"] * 2 + ["-"]
    assert grid(("a", (SEEDS,))).titles[1] == "m0 (n=16 x 3 seeds)"


def test_what_cannot_be_pooled_is_shown_apart():
    few = WIDE._replace(n=12)
    assert shown((WIDE, few)) == "0.50 [0.25, 0.75] (n=16); 0.50 [0.25, 0.75] (n=12)"


def test_small_numbers_get_a_third_digit_and_one_value_no_interval():
    assert shown((SMALL,)) == "0.004 [0.001, 0.010]"
    assert shown((LONE,)) == "0.50"
    assert shown((Estimate(float("nan"), None, None, 3),)) == "nan"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.1, 0.75, "+0.50* [+0.10, +0.75]"),
        (-0.1, 0.75, "+0.50 [-0.10, +0.75]"),
        (0.0, 0.75, "+0.50 [+0.00, +0.75]"),
        (-0.001, 0.75, "+0.50 [0.00, +0.75]"),
    ],
)
def test_a_star_says_that_an_interval_excludes_zero(low, high, text):
    assert shown((Estimate(0.5, low, high, 16),), signed=True) == text


def test_in_a_terminal_the_interval_stands_beneath():
    assert grid(("a", (WIDE,))).lines() == [["a", "0.50\n[0.25, 0.75]"]]


@pytest.mark.parametrize("width", [20, 40, 100])
def test_blocks_fit_and_each_begins_with_the_heads(width):
    made = dataclasses.replace(grid(("a", "b", *[(WIDE,)] * 9)), heads=2)
    blocks = list(made.blocks(width))
    assert [i for block in blocks for i in block[2:]] == list(range(2, 11))
    assert all(block[:2] == [0, 1] and len(block) > 2 for block in blocks)
    assert all(8 + 13 * (len(block) - 2) <= max(width, 21) for block in blocks)


EVIL = "<script>|\x1b[31m[red]\nnext"


def test_markdown_holds_no_markup_of_a_run():
    text = grid((EVIL, (WIDE,))).markdown()
    line = text.splitlines()[-1]
    assert line == "| &lt;script&gt;/␣[31m[red] next | 0.50 [0.25, 0.75] |"
    assert plain(EVIL) == "<script>|␣[31m[red] next"


def test_a_record_is_strict_json():
    odd = Estimate(float("nan"), None, None, 3)
    made = grid(("a", (WIDE,), (odd,), ()), ("b", (WIDE, SEEDS), (WIDE,), ()))
    record = json.loads(json.dumps(made.record(), allow_nan=False))
    first, second = record["rows"]
    assert first["m0"] == WIDE._asdict()
    assert first["m1"]["mean"] is None and first["m2"] is None
    assert [e["seeds"] for e in second["m0"]] == [1, 3]
