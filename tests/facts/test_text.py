"""General text as token sequences."""

import numpy as np
import pytest

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
    for name, words in {**said, ".": "is a folder; expected a plain file"}.items():
        with pytest.raises(UserError, match=words):
            Text(path=str(tmp_path / name)).load(ToyTokenizer())
