"""General text as token sequences."""

import dataclasses
import json

import numpy as np
import pytest
import zstandard

from mu_jax.errors import UserError
from mu_jax.facts.text import Text
from mu_jax.testing import ToyTokenizer


@pytest.mark.parametrize("length", [8, 48])
def test_every_sequence_has_one_bos_and_the_length_asked_for(length):
    tokenizer = ToyTokenizer()
    for part in Text(length=length).load(tokenizer):
        assert part.shape[1] == length and len(part) > 0
        assert (part[:, 0] == tokenizer.bos).all()
        assert (part[:, 1:] != tokenizer.bos).all()
        assert (part != tokenizer.pad).all()


def test_the_shipped_text_is_enough_for_training_and_evaluation():
    train, heldout = Text().load(ToyTokenizer())
    assert len(train) >= 24 and len(heldout) >= 8


def test_no_word_is_lost_between_sequences_and_no_paragraph_is_in_both(tmp_path):
    path, tokenizer = tmp_path / "text.txt", ToyTokenizer(1 << 20)
    paragraphs = [" ".join(f"p{i}w{j}" for j in range(40)) for i in range(8)]
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    text = Text(path=str(path), length=11, heldout=0.25)
    train, heldout = text.load(tokenizer)
    for part, own in ((train, paragraphs[:6]), (heldout, paragraphs[6:])):
        ids = tokenizer.encode("\n\n".join(own)).ids[1:]
        body = part[:, 1:].ravel()
        assert len(ids) - len(body) < 10
        assert np.array_equal(body, ids[: len(body)])


def test_loading_is_a_pure_function():
    one, two = Text().load(ToyTokenizer()), Text().load(ToyTokenizer())
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("text", ["", "\n\n", "one\n\ntwo", "word " * 500])
def test_a_text_too_short_is_refused(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"text\.txt is too short.*give a longer text"):
        Text(path=str(path)).load(ToyTokenizer())


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    said = dict.fromkeys(("latin.txt", "nope.txt"), r"cannot read .*UTF-8")
    for name, words in {**said, ".": r"streamed, without text\.rows"}.items():
        with pytest.raises(UserError, match=words):
            Text(path=str(tmp_path / name)).load(ToyTokenizer())


# ---- streamed


@pytest.fixture
def folder(tmp_path):
    """40 texts of 30 words in two JSON Lines files, one of them compressed."""
    rows = [
        json.dumps({"text": " ".join(f"t{i}w{j}" for j in range(30)), "meta": {}})
        for i in range(40)
    ]
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train-0.jsonl").write_text("\n".join(rows[:20]) + "\n")
    packed = zstandard.compress(("\n".join(rows[20:]) + "\n").encode())
    (tmp_path / "set/train-1.jsonl.zst").write_bytes(packed)
    return tmp_path / "set"


def owners(part, tokenizer) -> set[str]:
    """The texts that the words of these sequences are from."""
    words = (w for row in part for w in tokenizer.decode([*map(int, row[1:])]).split())
    return {word.partition("w")[0] for word in words}


def test_a_data_set_is_read_as_far_as_it_is_asked_for(folder):
    tokenizer = ToyTokenizer(1 << 20)
    text = Text(str(folder), length=11, rows=15, buffer=0)
    train, heldout = text.load(tokenizer)
    assert train.shape == (15, 11) and heldout.shape == (5, 11)
    assert (train[:, 0] == tokenizer.bos).all()
    # Three sequences of ten words a text, the held-out ones first.
    assert owners(heldout, tokenizer) == {"t0", "t1"}
    assert owners(train, tokenizer) == {f"t{i}" for i in range(2, 7)}
    whole, _ = dataclasses.replace(text, rows=90, heldout=0.2).load(tokenizer)
    assert len(owners(whole, tokenizer)) == 30  # of both files


def test_the_seed_shuffles_and_no_text_is_in_both_parts(folder):
    tokenizer = ToyTokenizer(1 << 20)
    made = {}
    for seed in (0, 1, 0):
        text = Text(str(folder), length=11, rows=15, seed=seed, buffer=100)
        train, heldout = text.load(tokenizer)
        assert not owners(train, tokenizer) & owners(heldout, tokenizer)
        assert np.array_equal(made.setdefault(seed, train), train)
    assert not np.array_equal(made[0], made[1])


def test_plain_files_are_read_paragraph_by_paragraph(tmp_path):
    words = [" ".join(f"t{i}w{j}" for j in range(10)) for i in range(8)]
    (tmp_path / "some.txt").write_text("\n\n".join(words))
    tokenizer = ToyTokenizer(1 << 20)
    train, heldout = Text(str(tmp_path), length=11, rows=6, buffer=0).load(tokenizer)
    assert (len(train), len(heldout)) == (6, 2)
    assert owners(train, tokenizer) == {f"t{i}" for i in range(2, 8)}


def test_fewer_rows_than_are_asked_for_are_refused(folder):
    with pytest.raises(UserError, match=r"too short: 90 rows .* expected 120"):
        Text(str(folder), length=11, rows=120, heldout=0.2).load(ToyTokenizer())
    with pytest.raises(UserError, match="too short"):
        Text(rows=10_000).load(ToyTokenizer())
    train, _ = Text(rows=7).load(ToyTokenizer())
    assert len(train) == 7


def test_what_no_text_can_be_had_from_is_refused(folder):
    with pytest.raises(UserError, match=r"without text\.rows.*--text\.rows 4096"):
        Text(str(folder))
    text = Text(str(folder), rows=3, column="body")
    with pytest.raises(UserError, match=r"record 1 has no text in 'body'.*text, meta"):
        text.load(ToyTokenizer())
    text = Text(str(folder), rows=3, hub_split="test")
    with pytest.raises(UserError, match="splits train; expected a split 'test'"):
        text.load(ToyTokenizer())
