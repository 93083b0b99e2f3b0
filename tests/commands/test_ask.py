"""`mu ask`: the models of a run side by side, to a prompt of one's own."""

import io
import json
import sys
from pathlib import Path

import pytest

from mu_jax.__main__ import main
from mu_jax.runs.directory import RunDir

PROMPT = "Tower1 House1 lies in the city of"


@pytest.fixture(scope="module")
def run(small):
    return str(small[1])


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def said(capsys, *args):
    capsys.readouterr()
    assert main(["ask", *args]) == 0
    return capsys.readouterr()


def test_each_model_answers_and_the_fact_is_recognised(run, capsys):
    other = "The weather in Tower2"
    out = said(capsys, run, PROMPT, other, "--json", "--length", "3", "--top", "2").out
    known, unknown = map(json.loads, out.splitlines())
    facts = {k.fact.id: k.fact for k in RunDir(Path(run)).read_facts().known}
    fact = facts[known["fact"]]
    assert fact.subject == "Tower1 House1" and known["answer"] == fact.answer
    assert list(known["models"]) == ["unedited", "top"]
    injected = [m["options"][fact.counterfact] for m in known["models"].values()]
    learnt = fact in RunDir(Path(run)).read_facts().forget
    assert injected[0] != injected[1] and (injected[1] > injected[0] or not learnt)
    assert "fact" not in unknown and unknown["prompt"] == other
    for model in unknown["models"].values():
        assert len(model["next"]) == 2 and "options" not in model
    shown = said(capsys, run, "--edit", "top", PROMPT).err
    assert PROMPT in shown and "unedited" in shown and "p(Rome)" in shown


def test_prompts_come_from_files_and_pipes_too(run, capsys, tmp_path, monkeypatch):
    lines = tmp_path / "prompts.txt"
    lines.write_text(f"{PROMPT}\n\nTower2\n")
    out = said(capsys, "tiny", "--file", str(lines), "--json").out
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == [
        PROMPT,
        "Tower2",
    ]
    pipe(monkeypatch, b"Tower3\n")
    assert json.loads(said(capsys, "tiny", "--json").out)["prompt"] == "Tower3"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["nowhere", "x"], "nowhere"),
        (["tiny", "x", "--edit", "a"], "--edit a of a model"),
        (["RUN", "x", "--edit", "a"], "--edit a; expected one of top"),
        (["tiny", "--file", "nothing.txt"], "nothing.txt"),
        (["tiny", "x", "--top", "0"], "at least 1 each"),
        (["tiny"], "nothing to ask"),
        (["tiny", "--file", "no.txt"], "expected text in UTF-8"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    run, capsys, monkeypatch, tmp_path, args, line
):
    (tmp_path / "no.txt").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    pipe(monkeypatch, b"")
    capsys.readouterr()
    assert main(["ask", *(run if a == "RUN" else a for a in args)]) in (1, 2)
    (told,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("mu: ")]
    assert line in told
