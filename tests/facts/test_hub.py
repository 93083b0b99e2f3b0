"""Folders in the hub's layout, and data sets of the hub that cannot be had."""

import json

import datasets
import pytest

from mu_jax.errors import UserError
from mu_jax.facts import hub

ROWS = [{"subject": s, "target": {"str": s}, "lists": [s, "x"]} for s in "abc"]


def lines(rows) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


@pytest.fixture
def folder(tmp_path):
    """Writes files into a folder in the hub's layout and returns its path."""

    def write(files: dict[str, str | bytes]) -> str:
        for name, data in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(tmp_path / "set")

    return write


@pytest.mark.parametrize(
    ("files", "split"),
    [
        ({"data.jsonl": lines(ROWS)}, "train"),
        ({"README.md": "# facts\n", "train.json": json.dumps(ROWS)}, "train"),
        ({"data/gemma-00000-of-00001.jsonl": lines(ROWS)}, "gemma"),
        ({"train.jsonl": lines(ROWS), "test.jsonl": lines(ROWS[:1])}, "train"),
    ],
    ids=["a file", "an array and a card", "the hub's file names", "train of two"],
)
def test_the_only_split_or_train_is_read(folder, files, split):
    path = folder(files)
    found = hub.read(path)
    assert [dict(r) for r in found] == ROWS
    assert found[1].place == f"{path}, split {split}, record 2"


@pytest.mark.parametrize("name", ["train[1].jsonl", "d*/train.jsonl", "q::r.jsonl"])
def test_a_name_that_is_a_pattern_is_refused(folder, name):
    path = folder({name: lines(ROWS), "train1.jsonl": lines(ROWS[:1])})
    with pytest.raises(UserError, match=r"in its name; .* give it another name"):
        hub.read(path)


def test_a_folder_whose_name_is_a_pattern_is_refused(tmp_path):
    for name in ("d[1]", "d1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(lines([{"name": name}]))
    with pytest.raises(UserError, match=r"d\[1\] has \*, "):
        hub.read(str(tmp_path / "d[1]"))


def test_a_split_is_chosen_by_name_and_otherwise_they_are_listed(tmp_path):
    path = tmp_path / "set"
    for name, rows in (("gemma_7b", ROWS), ("llama3_8b", ROWS[:2])):
        target = path / "data" / f"{name}-00000-of-00001.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows).to_parquet(target)
    assert [dict(r) for r in hub.read(str(path), "llama3_8b")] == ROWS[:2]
    for split in (None, "train"):
        with pytest.raises(UserError, match=r"splits gemma_7b, llama3_8b; expected"):
            hub.read(str(path), split)


def test_a_card_names_the_splits(folder):
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: one, path: a.csv}\n  - {split: two, path: b.csv}\n---\n"
    )
    path = folder({"README.md": card, "a.csv": "n\nx\n", "b.csv": "n\ny\nz\n"})
    assert [r["n"] for r in hub.read(path, "two")] == ["y", "z"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"set.py": "raise SystemExit('ran')"}, "scripts are no longer supported"),
        ({"data.pkl": b"\x80\x04K*."}, "cannot be loaded"),
        ({"notes.txt": "hello"}, "the loader 'text'; expected CSV, JSON"),
        ({"data.jsonl": '{"a": 1}\n{"a"\n'}, "cannot be loaded"),
        ({"data.jsonl": ""}, "cannot be loaded"),
        ({"data.parquet": b"nothing"}, "cannot be loaded"),
        ({"README.md": "nothing else"}, "cannot be loaded"),
    ],
    ids=["script", "pickle", "text", "bad JSON", "empty", "bad parquet", "no data"],
)
def test_a_folder_that_cannot_be_read_is_one_line(folder, files, said):
    path = folder(files)
    with pytest.raises(UserError) as error:
        hub.read(path)
    assert path in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_without_a_network_a_data_set_is_one_clear_line():
    with pytest.raises(UserError, match=r"owner/facts is no file.*hub cannot be reach"):
        hub.read("owner/facts")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("owner/name", True),
        ("azhx/counterfact-v1.2", True),
        ("owner/name.jsonl", False),
        ("data/facts.CSV", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("a/b/c", False),
        ("name", False),
    ],
)
def test_what_spells_a_data_set(path, is_one):
    assert hub.is_dataset(path) == is_one


def test_a_folder_is_one_and_a_file_is_not(folder):
    path = folder({"data": "x"})
    assert hub.is_dataset(path) and not hub.is_dataset(f"{path}/data")
