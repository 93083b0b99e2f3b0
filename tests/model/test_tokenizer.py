"""Tokenizers from a checkpoint's files: one BOS, honest spans, their own files back."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from mu_jax.errors import UserError
from mu_jax.model.tokenizer import JsonTokenizer, from_files

SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>"]


def made(**changes) -> bytes:
    """A byte-level tokenizer that would add BOS and EOS, trim spans, pad and cut."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("©", "b"), ("Ã", "©")]
    merges += [("æ", "Ĺ")]  # two of the three bytes of a character
    names = [*letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    begin, end = (tokenizer.token_to_id(name) for name in SPECIAL[:2])
    ends = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>",
        special_tokens=[("<|begin|>", begin), ("<|end|>", end)],
    )
    trims = processors.ByteLevel(trim_offsets=True)
    tokenizer.post_processor = processors.Sequence([trims, ends])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32, pad_token="<|pad|>")
    return json.dumps({**json.loads(tokenizer.to_str()), **changes}).encode()


def files(**settings) -> dict[str, bytes]:
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", **settings}
    described = json.dumps(settings).encode()
    return {"tokenizer.json": made(), "tokenizer_config.json": described}


TOKENIZER = from_files(files())


@given(text=st.text())
def test_ids_are_the_text_behind_one_bos(text):
    ids, spans = TOKENIZER.encode(text)
    assert ids[0] == TOKENIZER.bos and ids.count(TOKENIZER.bos) == 1
    assert TOKENIZER.decode(ids) == text
    assert len(ids) == len(spans)


@given(text=st.text())
def test_spans_cut_the_text_without_a_gap(text):
    """Spaces in front of a word too: they are part of its token."""
    _, spans = TOKENIZER.encode(text)
    assert spans[0] == (0, 0)
    assert "".join(text[start:stop] for start, stop in spans) == text
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("the the", ["", "t", "he", " the"]),
        ("é", ["", "é"]),
        ("a王b", ["", "a", "", "", "王", "b"]),
        ("日", ["", "", "日"]),  # of three bytes the first two are one token
        ("éb", ["", "", "éb"]),  # the second byte and the b are one
    ],
)
def test_the_last_token_of_a_character_has_its_span(text, wanted):
    _, spans = TOKENIZER.encode(text)
    assert [text[start:stop] for start, stop in spans] == wanted


def test_long_texts_are_not_cut_nor_short_ones_padded():
    assert len(TOKENIZER.encode("b" * 50).ids) == 51
    assert len(TOKENIZER.encode("b").ids) == 2
    assert TOKENIZER.encode("").ids == [TOKENIZER.bos]


def test_the_first_token_of_a_continuation():
    assert TOKENIZER.decode([TOKENIZER.first_token(" the end")]) == " the"


def test_control_tokens_vanish_and_a_spelt_bos_is_refused():
    ids = TOKENIZER.encode("a").ids
    assert TOKENIZER.decode([*ids, TOKENIZER.eos]) == "a"
    with pytest.raises(UserError, match="spells out the BOS token"):
        TOKENIZER.encode("a <|begin|> b")


def test_special_ids_come_from_the_settings_first():
    assert (TOKENIZER.bos, TOKENIZER.eos) == (262, 263)
    assert TOKENIZER.pad == TOKENIZER.eos  # none is named
    padded = from_files(files(pad_token={"content": "<|pad|>"}), bos=3, pad=5)
    assert (padded.bos, padded.pad) == (262, 264)
    alone = from_files({"tokenizer.json": made()}, bos=3, pad=5)
    assert (alone.bos, alone.pad) == (3, 5)


def test_the_files_make_it_again():
    beside = {"special_tokens_map.json": b"{}"}
    given_files = {**files(), **beside}
    tokenizer = from_files(given_files)
    assert tokenizer.files() == given_files
    assert from_files(tokenizer.files()).encode("the é").ids == (
        tokenizer.encode("the é").ids
    )


def test_sentencepiece_goes_before_json(gemma):
    proto = gemma.tokenizer.files()["tokenizer.model"]
    both = from_files({**files(), "tokenizer.model": proto})
    assert both.encode("Paris").ids == gemma.tokenizer.encode("Paris").ids
    assert both.files().keys() == {*files(), "tokenizer.model"}
    assert (both.bos, both.eos, both.pad) == (2, 1, 0)


@pytest.mark.parametrize(
    ("given_files", "message"),
    [
        ({}, "without a tokenizer; expected tokenizer.model .* or tokenizer.json"),
        ({"tokenizer.json": b""}, r"tokenizer\.json that cannot be read"),
        ({"tokenizer.json": b"{}"}, r"tokenizer\.json that cannot be read"),
        ({"tokenizer.json": b"\xff"}, r"tokenizer\.json that cannot be read"),
        ({"tokenizer.json": made(version=3)}, r"tokenizer\.json that cannot be read"),
        ({"tokenizer.json": made()}, "without a BOS token"),
        (files(bos_token=None), "without a BOS token"),
        (files(bos_token="<s>"), "without a BOS token"),
        ({**files(), "tokenizer_config.json": b"[]"}, r"tokenizer_config\.json is no"),
        ({"tokenizer.model": b"junk"}, r"tokenizer\.model that is not a SentencePiece"),
        ({"tokenizer.model": b""}, r"tokenizer\.model that is not a SentencePiece"),
    ],
)
def test_what_is_no_tokenizer_is_refused(given_files, message):
    with pytest.raises(UserError, match=message):
        from_files(given_files)


@pytest.mark.parametrize("index", [-1, 10**9, None, 2.0])
def test_a_bos_outside_of_the_vocabulary_is_none(index):
    with pytest.raises(UserError, match="without a BOS token"):
        JsonTokenizer(made(), {}, bos=index)


def test_ids_beyond_the_vocabulary_vanish(gemma):
    """Of both kinds: a model may have more rows than its tokenizer has tokens."""
    for tokenizer in (TOKENIZER, gemma.tokenizer):
        ids = tokenizer.encode("a").ids
        assert tokenizer.decode([*ids, 1 << 20]) == "a"
