"""Tables made from rows."""

import pytest

from mu_jax.report.tables import Table, details, summary
from mu_jax.types import Row

FORMATS = ("train", "paraphrase", "neighbours", "mcq")


def row(model, name, split, prompt, metric, mean, note="") -> Row:
    ends = (mean - 0.5, mean + 0.5)
    where = (model, name, split, prompt, metric)
    return Row(*where, (mean,) * 4, mean, *ends, 4, note=note)


def made(formats, notes=()) -> Table:
    """Every number tells where it belongs: model, split and metric."""
    rows = []
    for i, model in enumerate(("unedited", "flu")):
        for j, split in enumerate(("forget", "heldout")):
            for prompt in formats:
                for k, metric in enumerate(("choice_true", "choice_injected")):
                    note = "not informative" if prompt in notes else ""
                    mean = i + j / 10 + k / 100
                    where = (model, "recall", split, prompt, metric)
                    rows.append(row(*where, mean, note))
        rows.append(row(model, "text", "heldout", "text", "loss", 4.0))
    return Table(rows)


def column(table: Table, title: str) -> list[str]:
    grid = summary(table, {})
    return [f"{row[grid.header.index(title)][0].mean:.2f}" for row in grid.rows]


def test_neighbours_are_to_keep_their_answer():
    table = made(FORMATS)
    header = summary(table, {}).header
    assert header == (
        "model",
        "edited",
        *(f"injected: {p}" for p in table.direct),
        "neighbours kept",
        *(f"held-out kept: {p}" for p in table.direct),
        "text loss",
    )
    assert table.direct == ["train", "paraphrase", "mcq"]
    assert column(table, "neighbours kept") == ["0.00", "1.00"]  # forget, choice_true
    assert column(table, "injected: mcq") == ["0.01", "1.01"]
    assert column(table, "held-out kept: mcq") == ["0.10", "1.10"]
    assert "neighbours kept: share of" in summary(table, {}).caption


@pytest.mark.parametrize("table", [made(FORMATS[:2]), made(FORMATS, ["neighbours"])])
def test_without_telling_neighbours_there_is_no_such_column(table):
    grid = summary(table, {})
    assert not any("neighbours" in title for title in grid.header)
    assert "neighbours kept" not in grid.caption


def test_the_caption_says_how_many_facts_and_which_formats_tell_nothing():
    grid = summary(made(FORMATS, ["mcq"]), {})
    assert "injected: train (n=4)" in grid.titles
    assert grid.caption.endswith("mcq: not informative.")
    assert "  " not in grid.caption


def test_details_show_every_format_with_its_error():
    grid = details(made(FORMATS, ["mcq"]), "forget")
    assert grid is not None
    assert [row[1] for row in grid.rows] == [*FORMATS, *FORMATS]
    assert [str(*cell) for cell in grid.cells[-1]] == [
        "flu",
        "mcq",
        "1.00 [0.50, 1.50]",
        "1.01 [0.51, 1.51]",
        "not informative",
    ]
