"""What the localizers found, in a line each, and how far they agree."""

import dataclasses

import numpy as np
import pytest
from made_scores import ALL, attribution, tracing

from mu_jax.localizers import edges
from mu_jax.report.findings import agreement, finding
from mu_jax.types import Scores, Site

LAYERS = range(6)


def scored(method: str, values, kind="mlp", tables=None, **notes) -> Scores:
    sites = {Site(i, kind): float(v) for i, v in enumerate(values)}
    axes = {name: ("first", "last")[: len(t[0])] for name, t in (tables or {}).items()}
    kind = {"attribution": "derivative", "tracing": "effect"}.get(method, "")
    notes = {"prompts": "same", "metric": "logit difference", **notes}
    notes |= {"measures": kind}
    return Scores(method, sites, tables or {}, axes, notes)


def compared(a: Scores, t: Scores) -> list[tuple[str, ...]]:
    grid = agreement({"ap": a, "ct": t})
    return [] if grid is None else list(grid.rows)


@pytest.mark.parametrize("scores", ALL.values(), ids=ALL)
def test_a_finding_is_one_line(scores):
    said = finding(scores)
    assert said and "\n" not in said


@pytest.mark.parametrize("scores", ALL.values(), ids=ALL)
def test_a_caption_is_a_heading_and_a_whole_sentence(scores):
    heading, said = scores.heading, scores.caption
    assert heading and heading[0].isupper() and said.endswith(".")


def test_captions_are_all_different():
    assert len({scores.heading for scores in ALL.values()}) == len(ALL)


def test_the_largest_sites_come_first_whatever_their_sign():
    said = finding(scored("tracing", [0.1, -0.9, 0.5, 0.2, -0.3, 0.05]))
    assert said == (
        "largest mlp: 1.mlp -0.90, 2.mlp +0.50, 4.mlp -0.30, 3.mlp +0.20, 0.mlp +0.10"
    )


@pytest.mark.parametrize("kind", ["head", "resid", "neuron", "query"])
def test_scores_of_other_kinds_only_are_not_passed_over(kind):
    assert f"largest {kind}: 1.{kind} -2.00" in finding(
        scored("attribution", [1, -2], kind)
    )


def test_probes_say_where_the_climb_is():
    said = finding(ALL["probes"])
    assert "from 0.40 to 0.90 over layers 1-2 (60 subjects)" in said
    assert said.endswith("prompt's end over layers 3-3")
    assert "first 1, last 2-3" in ALL["probes"].caption


def test_paths_name_the_extraction_heads_and_the_receiver():
    said = finding(ALL["paths"])
    assert said.startswith("heads 2.head.1, 4.head.3 write the answer")
    assert "below layer 2" in said and ".mlp " in said


def test_edges_are_written_from_writer_to_reader():
    notes = {"edges": [["embed", "0.mlp", -0.5], ["0.mlp", "logits", 0.25]]}
    said = edges.told({**notes, "steps": 0, "rows": 4})["finding"]
    assert said == "largest: embed -> 0.mlp -0.50, 0.mlp -> logits +0.25"


@pytest.mark.parametrize(
    "names", [(), ("probes",), ("attribution", "paths", "edges"), ("tracing", "probes")]
)
def test_without_both_methods_there_is_no_agreement_to_tell(names):
    assert agreement({name: ALL[name] for name in names}) is None


def test_every_pair_of_attribution_and_tracing_is_compared_kind_by_kind():
    found = {"a": attribution(), "b": attribution(direction="denoising")}
    grid = agreement({**found, "ct": tracing(), "paths": ALL["paths"]})
    pairs = [(names, kind) for names, kind, *_ in grid.rows]
    kinds = ("attn", "mlp", "resid")
    assert pairs == [(f"{name}, ct", kind) for name in found for kind in kinds]
    assert all(len(row) == len(grid.header) for row in grid.rows)


def test_equal_scores_correlate_perfectly():
    values = [0.3, -0.1, 0.7, 0.2, 0.0, 1.0]
    tables = {"mlp": [[v, 2 * v] for v in values]}
    a = scored("attribution", values, tables=tables, direction="denoising")
    t = scored("tracing", values, tables=tables)
    assert compared(a, t) == [("ap, ct", "mlp", "1.00 (1.00)", "1.00 (1.00)")]


def test_a_noising_attribution_counts_with_its_sign_flipped():
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.0, 1.0])
    table = lambda v: {"mlp": np.stack([v, 2 * v], 1).tolist()}
    a = scored("attribution", -values, tables=table(-values), direction="noising")
    t = scored("tracing", values, tables=table(values))
    assert compared(a, t) == [("ap, ct", "mlp", "1.00 (1.00)", "1.00 (1.00)")]
    a = dataclasses.replace(a, notes={**a.notes, "direction": "denoising"})
    assert compared(a, t) == [("ap, ct", "mlp", "-1.00 (-1.00)", "-1.00 (-1.00)")]


@pytest.mark.parametrize(
    "other", [{"prompts": "64"}, {"metric": "nll"}, {"prompts": None}]
)
def test_scores_of_other_prompts_or_metrics_are_not_compared(other):
    a = scored("attribution", [0.3, -0.1, 0.7, 0.2], direction="denoising")
    t = scored("tracing", [0.3, -0.1, 0.7, 0.2], **other)
    assert compared(a, t) == [("ap, ct", "mlp", "-", "-")]


def test_ranks_are_correlated_beside_the_numbers():
    a = scored("attribution", [0, 1, 2, 3], direction="denoising")
    t = scored("tracing", [0, 1, 2, 30])
    (row,) = compared(a, t)
    assert row[2:] == ("0.81 (1.00)", "-")


def test_only_sites_and_columns_of_both_are_compared():
    a = scored(
        "attribution",
        [1, 2, 3, 9],
        tables={"mlp": [[1, 5], [2, -5], [3, 5], [4, 0]]},
        direction="denoising",
    )
    t = scored("tracing", [2, 4, 6], tables={"mlp": [[1], [2], [3], [4]]})
    assert compared(a, t) == [("ap, ct", "mlp", "1.00 (1.00)", "1.00 (1.00)")]


def test_too_few_or_constant_scores_are_not_correlated():
    a = scored("attribution", [1, 2], direction="denoising")
    assert compared(a, scored("tracing", [1, 2])) == []
    a = scored("attribution", [1, 2, 3], direction="denoising")
    assert compared(a, scored("tracing", [5, 5, 5]))[0][2] == "-"
