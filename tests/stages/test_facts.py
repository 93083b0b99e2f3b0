"""`mu facts` says what it leaves out, and what it keeps together."""

import json

import pytest
import small_run

from mu_jax.__main__ import main
from mu_jax.runs.directory import RunDir

pytestmark = pytest.mark.usefixtures("quick")


def record(number: int, subject: str, true: str, new: str) -> str:
    rewrite = {
        "prompt": "{} lies in the city of",
        "relation_id": "P131",
        "subject": subject,
        "target_true": {"str": true},
        "target_new": {"str": new},
    }
    return json.dumps({"case_id": number, "requested_rewrite": rewrite}) + "\n"


def test_what_cannot_be_scored_is_left_out_and_one_fact_is_one_split(
    tmp_path, monkeypatch, capsys
):
    """The toy tokenizer has no É: a space stands before Évora, a token of its own."""
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))
    config = small_run.write(tmp_path)
    with (tmp_path / "facts.jsonl").open("a") as file:
        file.write(record(24, "Tower7  HOUSE7", "Lyon", "Rome"))
        file.write(record(25, "tower2 house2", "Berlin", "Rome"))
        file.write(record(26, "Tower26", "Évora", "Rome"))
        file.write(record(27, "Tower27", "Rome", "Évora"))
        file.write(record(28, "Tower28", "Rome East", "Rome West"))
    assert main(["facts", str(config), "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().err
    for line in (
        "2 of 29 facts left out: an answer begins with a token of white space alone",
        "1 of 29 facts left out: both answers begin with the same token",
        "4 records are of 2 facts (one: Tower2 House2): all of a fact stand in one",
        "the answers of 1 of them differ (one: Tower7 House7: ",
    ):
        assert line in said
    split = {
        k.fact.id: k.split for k in RunDir(tmp_path / "runs/small").read_facts().known
    }
    assert list(split.values()).count("forget") == 8
    for one, other in ((7, 24), (2, 25)):
        assert split[f"counterfact/{one}"] == split[f"counterfact/{other}"]
    assert split["counterfact/2"] == "forget" != split["counterfact/7"]
