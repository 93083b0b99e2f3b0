"""Run directories: what is written is read back, what is damaged is named."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.runs.directory import RunDir
from mu_jax.types import Fact, Facts, Known, Row, Scores, Selection, Site

NAME = 'Zoë "Z" \u2028\x85 O\'Neil\n'
FACT = Fact("s/x", NAME, "plays", " golf", " chess", f"Is {NAME}", ("p",), start=3)
FACTS = Facts((Known(FACT, "forget", 0.75), Known(FACT, "retain", 0.5)))
SCORES = Scores(
    "attribution",
    {Site(0, "mlp"): -1.5, Site(12, "head", 3): 1e-30, Site(1, "attn"): 0.1 + 0.2},
    {"mlp": [[0.1, 0.2], [0.3, 0.4]]},
    {"mlp": ["first", "last"]},
    {"rows": 3, "metric": "KL", "direction": "noising", "interval": [1.0, 2.0]},
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
    Row("flu as x", "text", "heldout", "text", "loss", (2.5,), 2.5, None, None, 1),
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
    run.write_rows("evals/flu", ROWS)
    assert run.read_rows("evals/flu") == ROWS


@given(text=st.text(), number=st.floats(allow_nan=False))
def test_any_text_and_number_survive(tmp_path_factory, text, number):
    run = RunDir(tmp_path_factory.getbasetemp() / "any")
    row = Row(
        "m", "recall", "forget", text, "p", (number,), number, None, None, 1, text
    )
    fact = Fact(text, text, text, text, text, text, (text,), (text, text))
    run.write_rows("evals/m", [row])
    run.write_asked([(fact, number)])
    assert run.read_rows("evals/m") == [row]
    assert run.read_asked() == [(fact, number)]


def test_a_journal_lies_beside_the_scores_it_is_for(run):
    run.write_scores("x", SCORES)
    with run.journal("scores/x", "f") as journal:
        journal["0.mlp@all"] = [1.0]
        assert files(run) == ["scores", "scores/x.json", "scores/x.partial"]
        assert dict(run.journal("scores/x", "f")) == {"0.mlp@all": [1.0]}
        assert dict(run.journal("scores/x.partial", "f")) == {}
        assert run.read_scores("x") == SCORES
    assert files(run) == ["scores", "scores/x.json"]


def test_an_artefact_has_a_stamp_of_its_own(run):
    assert run.stamped("facts") == ""
    for artefact in ("facts", "scores/probes", "attacks/relearn/flu"):
        run.stamp(artefact, f"of {artefact}")
    run.stamp("facts", "other")
    assert run.stamped("facts") == "other"
    assert run.stamped("attacks/relearn/flu") == "of attacks/relearn/flu"
    run.unstamp("facts")
    run.unstamp("facts")
    assert run.stamped("facts") == "" != run.stamped("scores/probes")


WRITERS = {
    "facts": lambda run: run.write_facts(FACTS),
    "scores/a": lambda run: run.write_scores("a", SCORES),
    "selections/flu": lambda run: run.write_selection(SELECTION),
    "parts/flu/1of2": lambda run: run.write_selection(SELECTION, "parts/flu/1of2"),
    "edits/flu": lambda run: run.clear_edit("flu", keep=("state",)),
    "evals/flu": lambda run: run.write_rows("evals/flu", ROWS),
    "attacks/a/flu": lambda run: run.write_rows("attacks/a/flu", ROWS),
}


@pytest.mark.parametrize("artefact", WRITERS)
def test_a_stamp_goes_before_its_artefact_is_touched(run, artefact, audit):
    """At every file that is replaced or removed, the stamp is gone already."""
    write, seen = WRITERS[artefact], []
    write(run)
    run.write_text("edits/flu/params/x", "")
    for other in WRITERS:
        run.stamp(other, "whole")

    def watch(event, args):
        if event in ("os.rename", "os.remove", "os.rmdir", "tempfile.mkstemp"):
            seen.append((str(args[0]), (run.path / "stamps" / artefact).exists()))

    with audit(watch):
        write(run)
    touched = [there for name, there in seen if "/stamps/" not in name]
    assert touched and not any(touched)
    assert {a for a in WRITERS if not run.stamped(a)} == {artefact}


def test_samples_are_part_of_an_evaluation(run):
    run.stamp("evals/flu", "whole")
    names = ("model", "split", "prompt", "fact", "asked", "said")
    said = [dict.fromkeys(names, "x")]
    run.write_samples("flu", said)
    assert run.stamped("evals/flu") == ""
    assert run.read_samples("flu") == said and run.read_samples("late") == []


def test_what_is_measured_lies_in_files_of_its_own(run):
    for artefact in ("evals/flu", "attacks/a/flu", "attacks/a/late", "harness/flu/x"):
        run.write_rows(artefact, ROWS)
    (run.path / "evals/.flu.jsonl").touch()
    run.write_rows("attacks/a/flu", ROWS[:1])
    expected = ["attacks/a/flu", "attacks/a/late", "evals/flu", "harness/flu/x"]
    with run.journal("attacks/b/flu", "f") as journal:
        journal["x"] = [1.0]
        assert sorted(run.measured()) == expected
    assert run.read_rows("attacks/a/flu") == ROWS[:1]
    assert run.read_rows("attacks/a/late") == ROWS


def test_a_write_that_fails_leaves_what_was_there(run):
    run.write_json("x.json", {"facts": "a"})
    with pytest.raises(UnicodeEncodeError):
        run.write_text("x.json", "x" * 100_000 + "\ud800")
    with pytest.raises(TypeError):
        run.write_json("x.json", {"facts": np.float32(1)})
    with pytest.raises(TypeError):
        run.write_lines("x.json", [{"ok": 1}, {"facts": object()}])
    assert run.read_json("x.json", "") == {"facts": "a"}
    assert files(run) == ["x.json"]


LINKED = {
    "edits/flu": (
        lambda run: run.clear_edit("flu"),
        lambda run: run.clear_edit("flu", keep=("state",)),
        lambda run: run.edit("flu"),
        lambda run: run.read_edited("flu"),
        lambda run: run.write_edited(SELECTION),
        lambda run: run.remove("edits/flu/state"),
    ),
    "edits/flu/state": (
        lambda run: run.clear_edit("flu", keep=("state",)),
        lambda run: run.folder("edits/flu/state"),
        lambda run: run.remove("edits/flu/state"),
    ),
    "edits": (lambda run: run.clear_edit("flu"), lambda run: run.edit("flu")),
    "scores": (
        lambda run: run.read_scores("x"),
        lambda run: run.write_scores("x", SCORES),
        lambda run: run.journal("scores/x", "f"),
    ),
    "scores/x.partial": (lambda run: run.journal("scores/x", "f"),),
    "evals": (
        lambda run: run.measured(),
        lambda run: run.write_rows("evals/flu", ROWS),
    ),
    "stamps": (
        lambda run: run.stamp("facts", "x"),
        lambda run: run.stamped("facts"),
        lambda run: run.write_facts(FACTS),
    ),
    "facts.jsonl": (
        lambda run: run.read_facts(),
        lambda run: run.write_facts(FACTS),
        lambda run: run.exists("facts.jsonl"),
    ),
}


@pytest.mark.parametrize("name", LINKED)
def test_links_are_refused_and_lead_nowhere(run, tmp_path, name):
    outside = tmp_path / "outside"
    (outside / "params").mkdir(parents=True)
    for file in ("params/x", "selection.json", "flu.jsonl", "x.json", "facts"):
        (outside / file).write_text("mine")
    before = sorted(outside.rglob("*"))
    (run.path / name).parent.mkdir(parents=True)
    target = outside / "selection.json" if "." in name else outside
    (run.path / name).symlink_to(target)
    for call in LINKED[name]:
        with pytest.raises(UserError, match="is a symbolic link"):
            call(run)
    assert sorted(outside.rglob("*")) == before
    assert all(f.read_text() == "mine" for f in before if f.is_file())


def test_a_journal_is_not_begun_through_a_link(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (run.path / "scores").mkdir(parents=True)
    (run.path / "scores/.x.partial.new").symlink_to(tmp_path / "mine")
    with run.journal("scores/x", "f") as journal:
        journal["cell"] = [1.0]
        assert (tmp_path / "mine").read_text() == "mine"
        assert dict(run.journal("scores/x", "f")) == {"cell": [1.0]}


def test_an_artefact_without_its_files_is_not_whole(run):
    run.write_scores("x", SCORES)
    run.write_rows("attacks/a/flu", ROWS)
    for artefact in ("scores/x", "attacks/a/flu"):
        assert not run.whole(artefact)  # not stamped: perhaps half made
        run.stamp(artefact, "f")
        assert run.whole(artefact) and run.stamped(artefact) == "f"
    (run.path / "scores/x.json").unlink()
    assert not run.whole("scores/x") and not run.whole("edits/flu")
    run.stamp("scores/x", "f")
    assert not run.whole("scores/x")


def test_an_artefact_that_was_changed_since_is_not_whole(run):
    run.write_rows("evals/flu", ROWS)
    run.write_samples("flu", [{"said": "x"}])
    run.stamp("evals/flu", "f")
    samples = (run.path / "samples/flu.jsonl").read_text()
    for change, file in ((samples * 2, "samples/flu.jsonl"), ("", "evals/flu.jsonl")):
        before = (run.path / file).read_text()
        (run.path / file).write_text(change)
        assert not run.whole("evals/flu") and run.stamped("evals/flu") == "f"
        (run.path / file).write_text(before)
        assert run.whole("evals/flu")
    (run.path / "samples/flu.jsonl").unlink()
    assert not run.whole("evals/flu")


def test_two_commands_do_not_make_the_same(run):
    held = "import sys, pathlib; from mu_jax.runs.directory import RunDir\n"
    held += "with RunDir(pathlib.Path(sys.argv[1])).held('edits/flu'): print('mine')"
    command = [sys.executable, "-c", held, str(run.path)]
    with run.held("edits/flu"), run.held("edits/late"), run.held("edits/flu"):
        other = subprocess.run(command, capture_output=True, text=True)
    assert "another command is making edits/flu" in other.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "mine\n", done.stderr
    assert files(run) == ["stamps", "stamps/edits"]


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
        (lambda run: run.read_rows("evals/a"), "evals/a.jsonl", "evaluate"),
        (lambda run: run.read_rows("attacks/a/b"), "attacks/a/b.jsonl", "attack"),
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
    "no subject there": b'{"id": "x", "subject": "a", "relation": "r", "answer": " b",'
    b' "counterfact": " c", "prompt": "a is", "start": 1, "probability": 1.0}',
    "other types": b'{"id": 1, "probability": "x", "values": 3, "tensors": 4}',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("file", ["facts", "asked", "rows"])
def test_a_damaged_line_is_named_with_its_file(run, file, damage):
    run.write_facts(FACTS)
    run.write_asked([(FACT, 0.5)])
    run.write_rows("evals/flu", ROWS)
    path = run.path / ("evals/flu.jsonl" if file == "rows" else f"{file}.jsonl")
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first + damage + b"\n")
    with pytest.raises(UserError) as error:
        run.read_rows("evals/flu") if file == "rows" else getattr(run, f"read_{file}")()
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
    with (run.path / "facts.jsonl").open("wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room on disk
    with pytest.raises(UserError, match=r"facts\.jsonl has 1073741825 bytes"):
        run.read_facts()


def test_what_a_killed_writer_left_goes_with_the_next_write(run):
    run.write_facts(FACTS)
    for name, age in ((".facts.jsonl.abcd1234", 7200), (".facts.jsonl.abcd1235", 60)):
        (run.path / name).touch()
        then = time.time() - age
        os.utime(run.path / name, (then, then))
    run.write_facts(FACTS)
    assert files(run) == [".facts.jsonl.abcd1235", "facts.jsonl"]
