"""Pictures: every one renders, quietly, whatever the tokens are called."""

import dataclasses
import io
import warnings

import numpy as np
import pytest
from made_scores import (
    ALL,
    HEADS,
    LAYERS,
    TOKENS,
    attribution,
    edges,
    paths,
    probes,
    tracing,
)
from matplotlib.figure import Figure

from mu_jax.report import curves, figures
from mu_jax.report.tables import Table
from mu_jax.types import Row, Scores, Site


def rendered(figure: Figure) -> bytes:
    """The picture as PNG; a warning is an error."""
    assert isinstance(figure, Figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


def drawn(scores: Scores) -> list[Figure]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = figures.of_scores(scores)
    for figure in made:
        assert rendered(figure).startswith(b"\x89PNG")
    return made


def texts(figure: Figure) -> str:
    return " ".join(
        t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text"))
    )


def renamed(scores: Scores, **notes) -> Scores:
    return dataclasses.replace(scores, notes={**scores.notes, **notes})


@pytest.mark.parametrize(
    ("name", "pictures"),
    [("probes", 1), ("attribution", 2), ("tracing", 2), ("paths", 1), ("edges", 1)],
)
def test_every_localizer_has_its_pictures(name, pictures):
    assert len(drawn(ALL[name])) == pictures


def test_scores_without_tables_have_no_pictures():
    assert figures.of_scores(Scores("attribution", {Site(0, "mlp"): 1.0})) == []


def test_a_picture_of_heads_alone_is_drawn():
    plain = attribution()
    heads = {"head": plain.tables["head"]}
    axes = {"head": plain.axes["head"]}
    assert len(drawn(dataclasses.replace(plain, tables=heads, axes=axes))) == 1


def test_odd_tokens_are_never_read_as_mathematics():
    odd = ["$$", "^_\\frac{1}{2}$", "$\\notacommand{$", "\\$\\$", "#", "\r", "▁the"]
    (_, examples) = drawn(tracing(["<bos>", *TOKENS, *odd, " city"]))
    assert "city" in texts(examples)


def test_white_space_in_tokens_is_made_visible():
    shown = {"x": "x", "\n": r"\n", "": "␣", " ": "␣", " of": "of", "<bos>": "<bos>"}
    (_, examples) = drawn(tracing(list(shown)))
    labels = [t.get_text() for t in examples.axes[0].get_xticklabels()]
    assert labels == list(shown.values())[1:]


def test_an_examples_common_start_is_left_out():
    scores = tracing(["<bos>", " In", " the", " city"])
    kinds = ("attn", "mlp", "resid")
    tables = dict(scores.tables)
    for kind in kinds:
        tables[f"example {kind}"] = [[0, 0, v, v] for v, *_ in tables[kind]]
    figure = figures.heat_maps(
        dataclasses.replace(scores, tables=tables), [f"example {k}" for k in kinds]
    )
    rendered(figure)
    for panel in figure.axes[: len(kinds)]:
        assert [t.get_text() for t in panel.get_xticklabels()] == ["the", "city"]


def test_one_scale_serves_all_maps_of_a_picture_and_white_is_nothing():
    (maps, _) = drawn(tracing())
    limits = {panel.images[0].get_clim() for panel in maps.axes[:3]}
    ((low, high),) = limits
    assert low == -high < 0
    assert [panel.get_title() for panel in maps.axes[:3]] == [
        "attention",
        "MLP",
        "residual",
    ]


def test_scores_of_nothing_but_zero_are_drawn():
    for scores in (attribution(), tracing(), paths()):
        tables = {k: np.zeros_like(v).tolist() for k, v in scores.tables.items()}
        assert drawn(dataclasses.replace(scores, tables=tables))
    nothing = [[a, b, 0.0] for a, b, _ in ALL["edges"].notes["edges"]]
    assert drawn(renamed(ALL["edges"], edges=nothing))


def test_extraction_heads_are_ringed_where_they_are():
    (figure,) = drawn(paths())
    rings = [tuple(np.ravel(line.get_data())) for line in figure.axes[0].lines]
    assert rings == [(1, 2), (3, 4)]
    assert figure.axes[0].images[0].get_array().shape == (LAYERS, HEADS)
    assert figure.axes[1].images[0].get_array().shape == (LAYERS, 1)


@pytest.mark.parametrize("n", [0, 1, 60])
def test_a_circuit_of_any_number_of_edges_is_drawn(n):
    (figure,) = drawn(edges(n))
    arrows = [t for t in figure.axes[0].texts if getattr(t, "arrow_patch", None)]
    assert len(arrows) == min(n, len(edges().notes["edges"]))


def test_the_nodes_of_a_circuit_are_labelled_by_what_they_are():
    (figure,) = drawn(edges())
    labels = {t.get_text() for t in figure.axes[0].texts} - {""}
    assert labels == {"embed", "logits", "mlp", "h0", "h2", "h3", "k1", "v0"}


def test_probe_curves_name_both_ranges():
    (figure,) = drawn(probes())
    said = texts(figure)
    assert "lookup 1-2" in said and "extraction 3" in said
    assert "control: shuffled labels" in said


def row(*where) -> Row:
    *where, mean = where
    return Row(*where, (mean,), mean, mean - 0.1, mean + 0.1, 4)


def rows(formats, models=("unedited", "flu")) -> Table:
    return Table(
        [
            row(model, "recall", "forget", prompt, "choice_injected", 0.5)
            for model in models
            for prompt in formats
        ]
        + [row(m, "text", "heldout", "text", "loss", 4.0) for m in models]
    )


@pytest.mark.parametrize(
    ("formats", "models"),
    [
        ((), ("unedited", "flu")),
        (("train",), ("unedited",)),
        (("train", "qa", "neighbours"), ("unedited", "flu", "late")),
    ],
)
def test_the_transfer_of_any_formats_and_models_is_drawn(formats, models):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures.transfer(rows(formats, models))
    rendered(figure)
    assert "neighbours" not in texts(figure)


@pytest.mark.parametrize("n", [0, 9])
def test_histories_of_any_number_of_edits_are_drawn(n):
    steps = [{"step": i, "forget": 2.0, "retain": 1.0, "text": 3.0} for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = curves.histories({f"edit {i}": steps for i in range(n)})
    rendered(figure)
    assert [len(panel.lines) for panel in figure.axes] == [n, n, n]
