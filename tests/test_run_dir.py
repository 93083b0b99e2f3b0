"""Run directories: what is written is read back, what is damaged is named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.run_dir import RunDir
from mu_jax.types import Fact, Facts, Known, Row, Scores, Selection, Site

FACT = Fact(
    "s/x", 'Zoë "Z" \u2028\x85 O\'Neil\n', "plays", " golf", " chess", "{}", ("p",)
)
FACTS = Facts((Known(FACT, "forget", 0.75), Known(FACT, "retain", 0.5)))
SCORES = Scores(
    "attribution",
    {Site(0, "mlp"): -1.5, Site(12, "head", 3): 1e-30, Site(1, "attn"): 0.1 + 0.2},
    {"mlp": [[0.1, 0.2], [0.3, 0.4]]},
    {"mlp": ["first", "last"]},
    {"rows": 3, "first_interval": [1.0, 2.0]},
)
SELECTION = Selection(
    "flu", (("mlp/down", (1, 2)), ("mlp/gate", (1, 2))), 1234, "probe curve"
)
ROWS = [
    Row(
        "unedited",
        "recall",
        "forget",
        "train",
        "p_true",
        (0.25, 0.5),
        1 / 3,
        0.2,
        0.4,
        2,
        note="why",
    ),
    Row("flu", "text", "heldout", "text", "loss", (2.5,), 2.5, None, None, 1),
]


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "run")


def files(run) -> list[str]:
    return sorted(str(p.relative_to(run.path)) for p in run.path.rglob("*"))


def test_facts_are_read_as_written(run):
    run.write_facts(FACTS)
    assert run.read_facts() == FACTS


def test_asked_facts_are_read_as_written(run):
    run.write_asked([(FACT, 0.1 + 0.2)])
    assert run.read_asked() == [(FACT, 0.1 + 0.2)]


def test_scores_are_read_as_written(run):
    run.write_scores("attribution", SCORES)
    assert run.read_scores("attribution") == SCORES


def test_selections_are_read_as_written_and_stay_hashable(run):
    run.write_selection(SELECTION)
    assert run.read_selection("flu") == SELECTION
    assert hash(run.read_selection("flu")) == hash(SELECTION)


def test_rows_are_read_as_written(run):
    run.write_rows(ROWS)
    assert run.read_rows() == ROWS


@given(text=st.text(), number=st.floats(allow_nan=False))
def test_any_text_and_number_survive(tmp_path_factory, text, number):
    run = RunDir(tmp_path_factory.getbasetemp() / "any")
    row = Row(
        "m", "recall", "forget", text, "p", (number,), number, None, None, 1, text
    )
    fact = Fact(text, text, text, text, text, text, (text,), (text, text))
    run.write_rows([row])
    run.write_asked([(fact, number)])
    assert run.read_rows() == [row]
    assert run.read_asked() == [(fact, number)]


def test_a_journal_lies_beside_the_scores_it_is_for(run):
    run.write_scores("x", SCORES)
    run.journal("scores/x", "f")["0.mlp@all"] = [1.0]
    assert files(run) == ["scores", "scores/x.json", "scores/x.partial.jsonl"]
    assert dict(run.journal("scores/x", "f")) == {"0.mlp@all": [1.0]}
    assert dict(run.journal("scores/x.partial", "f")) == {}
    assert run.read_scores("x") == SCORES
    run.journal("scores/x", "f").finish()
    assert files(run) == ["scores", "scores/x.json"]


def test_stamps_add_up(run):
    assert run.stamps() == {}
    run.stamp({"facts": "a"})
    run.stamp({"scores/probes": "b", "facts": "c"})
    assert run.stamps() == {"facts": "c", "scores/probes": "b"}


def test_an_artefact_is_replaced_whole_and_nothing_partial_is_left(run):
    run.write_rows(ROWS)
    run.write_rows(ROWS[:1])
    assert run.read_rows() == ROWS[:1]
    assert files(run) == ["evals.jsonl"]


def test_a_write_that_fails_leaves_what_was_there(run):
    run.write_json("stamps.json", {"facts": "a"})
    with pytest.raises(UnicodeEncodeError):
        run.write_text("stamps.json", "x" * 100_000 + "\ud800")
    with pytest.raises(TypeError):
        run.write_json("stamps.json", {"facts": np.float32(1)})
    with pytest.raises(TypeError):
        run.write_lines("stamps.json", [{"ok": 1}, {"facts": object()}])
    assert run.stamps() == {"facts": "a"}
    assert files(run) == ["stamps.json"]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "..", "x\n", "/etc", "a b"]
)
def test_names_that_would_leave_their_folder_are_refused(run, name):
    calls = [
        lambda: run.write_scores(name, SCORES),
        lambda: run.read_scores(name),
        lambda: run.read_selection(name),
        lambda: run.edit(name),
        lambda: (
            run.journal(f"scores/{name}", "f") if "/" not in name else run.edit(name)
        ),
        lambda: run.read_edited(name),
        lambda: run.write_selection(Selection(name, (), 0)),
    ]
    for call in calls:
        with pytest.raises(UserError, match="the name"):
            call()
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("read", "file", "stage"),
    [
        (lambda run: run.read_facts(), "facts.jsonl", "facts"),
        (lambda run: run.read_asked(), "asked.jsonl", "facts"),
        (lambda run: run.read_rows(), "evals.jsonl", "evaluate"),
        (lambda run: run.read_scores("probes"), "scores/probes.json", "localize"),
        (lambda run: run.read_selection("flu"), "selections/flu.json", "select"),
    ],
)
def test_a_missing_file_names_the_stage_that_makes_it(run, read, file, stage):
    run.write_json("config.json", {})
    with pytest.raises(UserError) as error:
        read(run)
    assert f"no {file} in {run.path}" in str(error.value)
    assert f"run: mu {stage} {run.path}" in str(error.value)


DAMAGE = {
    "half a record": b'{"id": "x", "subj',
    "no record": b"17",
    "null": b"null",
    "a list": b"[]",
    "empty record": b"{}",
    "text": b"hello",
    "bytes": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "other types": b'{"id": 1, "probability": "x", "values": 3, "tensors": 4}',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", ["facts", "asked", "rows"])
def test_a_damaged_line_is_named_with_its_file(run, file, damage):
    run.write_facts(FACTS)
    run.write_asked([(FACT, 0.5)])
    run.write_rows(ROWS)
    name = {"rows": "evals"}.get(file, file) + ".jsonl"
    path = run.path / name
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first + damage + b"\n")
    with pytest.raises(UserError) as error:
        getattr(run, f"read_{file}")()
    assert f"{path}, line 2 is damaged" in str(error.value)
    assert "delete it and run its stage again" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_json_is_named(run, damage):
    for name in ("scores/x.json", "selections/x.json"):
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage)
        read = run.read_scores if name.startswith("scores") else run.read_selection
        with pytest.raises(UserError) as error:
            read("x")
        assert f"{path} is damaged" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_stamps_count_as_none(run, damage):
    run.path.mkdir()
    (run.path / "stamps.json").write_bytes(damage)
    assert not {"facts", "scores/probes"} & run.stamps().keys()


def test_lines_are_json_that_any_reader_takes(run):
    run.write_facts(FACTS)
    lines = (run.path / "facts.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["split"] for line in lines if line] == ["forget", "retain"]


def test_what_is_kept_stays_when_a_folder_is_emptied(run):
    for name in ("edits/a/state/x", "edits/a/params/y", "edits/a/z", "edits/b/z"):
        run.write_text(name, "")
    run.remove("edits/a", keep=("state",))
    run.remove("nothing", keep=("state",))
    assert [n for n in files(run) if n.endswith(("x", "y", "z"))] == [
        "edits/a/state/x",
        "edits/b/z",
    ]


def test_a_file_that_is_far_too_large_is_not_read(run):
    run.path.mkdir(parents=True)
    with (run.path / "evals.jsonl").open("wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room on disk
    with pytest.raises(UserError, match=r"evals\.jsonl has 1073741825 bytes"):
        run.read_rows()
