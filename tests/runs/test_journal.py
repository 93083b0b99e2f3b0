"""Journals: what was flushed is read again, whatever happened next."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import HANGS

from mu_jax.runs.journal import Journal

WRITER = """
import sys
from pathlib import Path
from mu_jax.runs.journal import Journal
journal = Journal(Path(sys.argv[1]), "f")
first = len(journal)
for i in range(first, 10_000_000):
    journal[f"cell {i}"] = [i, i / 3, -0.0]
"""
NUMBERS = st.lists(st.floats(allow_nan=False), max_size=4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores" / "x.partial.jsonl"


def made(path, records, fingerprint="f") -> Journal:
    journal = Journal(path, fingerprint)
    journal.update(records)
    journal.close()
    return journal


def killed_while_writing(path, lines: int) -> None:
    """A process that writes on and on, until the file has that many lines."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        until = time.monotonic() + HANGS
        while not path.exists() or path.read_bytes().count(b"\n") < lines:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def whole_lines(path) -> list[bytes]:
    return [x for x in path.read_bytes().splitlines(keepends=True) if x[-1:] == b"\n"]


def test_a_killed_writer_leaves_all_that_it_flushed(path):
    seen = 0
    for _ in range(2):
        killed_while_writing(path, seen + 500)
        journal = Journal(path, "f")
        assert len(journal) == len(whole_lines(path)) - 1 > seen
        assert list(journal) == [f"cell {i}" for i in range(len(journal))]
        assert all(journal[f"cell {i}"] == [i, i / 3, 0] for i in range(len(journal)))
        seen = len(journal)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@given(data=st.data(), records=st.dictionaries(st.text(), NUMBERS, min_size=1))
def test_a_file_cut_anywhere_holds_the_records_before(tmp_path_factory, data, records):
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    made(path, records).finish()
    made(path, records)
    text = path.read_bytes()
    cut = data.draw(st.integers(0, len(text)))
    path.write_bytes(text[:cut])
    kept = max(text[:cut].count(b"\n") - 1, 0)
    assert dict(Journal(path, "f")) == dict(list(records.items())[:kept])
    path.unlink()


def test_going_on_behind_a_torn_line_loses_nothing_else(path):
    made(path, {"a": [1.0], "b": [2.0]})
    with path.open("a") as file:
        file.write('["c", [3.')
    made(path, {"d": [4.0]})
    assert dict(Journal(path, "f")) == {"a": [1.0], "b": [2.0], "d": [4.0]}
    assert len(whole_lines(path)) == 4


@given(records=st.dictionaries(st.text(), NUMBERS))
def test_any_key_and_number_survive(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    journal = made(path, records)
    assert dict(Journal(path, "f")) == dict(journal) == records
    journal.finish()


def test_numbers_keep_every_bit(path):
    row = [0.1 + 0.2, 1e-308, 5e-324, 1 / 3, float("inf")]
    made(path, {"a": row})
    assert Journal(path, "f")["a"] == row


def test_other_settings_find_an_empty_journal_and_start_anew(path):
    made(path, {"a": [1.0]}, "old")
    assert dict(Journal(path, "new")) == {}
    made(path, {"b": [2.0]}, "new")
    assert dict(Journal(path, "new")) == {"b": [2.0]}
    assert dict(Journal(path, "old")) == {}


DAMAGE = {
    "nothing": b"",
    "an empty line": b"\n",
    "text": b"hello\n",
    "bytes": b"\xff\xfe\x00\n",
    "no fingerprint": b"{}\n",
    "no object": b"[]\n",
    "deep": b"[" * 100_000 + b"\n",
    "deep below": b'{"fingerprint": "f"}\n' + b"[" * 100_000 + b"\n",
    "half a record": b'{"fingerprint": "f"}\n["a", [1.0\n',
    "no pair": b'{"fingerprint": "f"}\n["a"]\n',
    "three": b'{"fingerprint": "f"}\n["a", [1.0], 2]\n',
    "a number": b'{"fingerprint": "f"}\n17\n',
    "a blank record": b'{"fingerprint": "f"}\n["a", [1.0]]\n\n',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_counts_as_nothing_and_is_written_over(path, damage):
    path.parent.mkdir()
    path.write_bytes(damage)
    assert dict(Journal(path, "f")) == {}
    made(path, {"a": [1.0]})
    assert dict(Journal(path, "f")) == {"a": [1.0]}


@pytest.mark.parametrize(
    "row",
    ["12", ["1"], 3, None, {"1": 2}, [[1.0]], [None], "x", ["os:system"]],
    ids=str,
)
def test_only_rows_of_numbers_are_taken(path, row):
    made(path, {"a": [1.0]})
    with path.open("a") as file:
        file.write(json.dumps(["b", row]) + "\n")
    assert dict(Journal(path, "f")) == {}


def test_nothing_is_created_before_the_first_record(path):
    journal = Journal(path, "f")
    assert len(journal) == 0 and "a" not in journal
    assert not path.parent.exists()
    journal.finish()


def test_a_finished_journal_is_gone_and_may_begin_again(path):
    journal = made(path, {"a": [1.0]})
    journal.finish()
    assert not list(path.parent.iterdir())
    journal.finish()
    assert dict(Journal(path, "f")) == {}


def test_what_fails_leaves_its_journal_closed_for_the_next_to_go_on(path):
    with pytest.raises(KeyError), Journal(path, "f") as journal:
        journal["a"] = [1.0]
        file = journal._file
        raise KeyError
    assert file.closed and dict(Journal(path, "f")) == {"a": [1.0]}
    with Journal(path, "f") as journal:
        journal["b"] = [2.0]
        assert dict(Journal(path, "f")) == {"a": [1.0], "b": [2.0]}
    assert not list(path.parent.iterdir())


def test_a_journal_only_grows(path):
    with Journal(path, "f") as journal:
        journal["a"] = [1.0]
        with pytest.raises(TypeError):
            del journal["a"]
        journal["a"] = [2.0]
        assert Journal(path, "f")["a"] == [2.0]
