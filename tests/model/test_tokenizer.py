"""Tokenizers from a checkpoint's files: one BOS, honest spans, their own files back."""

import itertools
import json

import made_pieces
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from mu_jax.errors import UserError
from mu_jax.model.json_tokenizer import JsonTokenizer
from mu_jax.model.tokenizer import from_files

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
    assert TOKENIZER.decode([TOKENIZER.encode(" the end").ids[1]]) == " the"


def test_control_tokens_vanish_and_a_spelt_bos_is_refused():
    ids = TOKENIZER.encode("a").ids
    assert TOKENIZER.decode([*ids, *TOKENIZER.ends]) == "a"
    with pytest.raises(UserError, match="spells out the BOS token"):
        TOKENIZER.encode("a <|begin|> b")


def test_special_ids_come_from_the_settings_first():
    assert (TOKENIZER.bos, TOKENIZER.ends) == (262, (263,))
    assert TOKENIZER.pad == 263  # none is named
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


# Control tokens and added ones, in all the files that a vocabulary comes in.

PROTO = {"tokenizer.model": made_pieces.proto()}
SETTINGS = {"tokenizer_config.json": made_pieces.settings()}
JSON = {"tokenizer.json": made_pieces.as_json(), **SETTINGS}
FACT = len(made_pieces.PIECES)
"""The id of a token that is added."""


@pytest.fixture(scope="module", params=[PROTO, JSON], ids=["proto", "json"])
def vocabulary(request):
    """The files of one vocabulary in either kind."""
    return request.param


def test_a_control_token_is_one_token_wherever_it_stands(vocabulary):
    tokenizer, text = from_files(vocabulary), "<start_of_turn>me p\n\n<b><unk><eos>a"
    wanted = ["<bos>", "<start_of_turn>", "m", "e", "▁p", "\n\n", "<b>", "<unk>"]
    wanted += ["<eos>", "a"]
    ids, spans = tokenizer.encode(text)
    assert ids == [made_pieces.ID[piece] for piece in wanted]
    found = [text[a:b] for a, b in spans]
    assert found == ["", *(piece.replace("▁", " ") for piece in wanted[1:])]
    assert tokenizer.decode(ids) == "me p\n\n<b>a"
    assert {tokenizer.markers[i] for i in (0, 1, 2, 3, 4, 5)} == {
        *(made_pieces.CONTROL), *made_pieces.TURNS, "<unk>",
    }  # fmt: skip


@given(
    text=st.lists(
        st.sampled_from(
            [*made_pieces.TURNS, "<unk>", "<", "\n", "▁", " ", "p", "é", "b>"]
        )
    ).map("".join)
)
def test_both_kinds_give_the_same_tokens(text):
    one, other = from_files(PROTO), from_files(JSON)
    assert one.encode(text) == other.encode(text)
    ids = one.encode(text).ids
    assert one.decode(ids) == other.decode(ids)


def test_a_pasted_bos_is_refused(vocabulary):
    with pytest.raises(UserError, match=r"BOS token: '<bos>Hi'.*remove <bos> from"):
        from_files(vocabulary).encode("<bos>Hi")


def test_half_of_a_character_is_refused(vocabulary):
    beside = {"tokenizer_config.json": made_pieces.settings(mask_token="\ud800")}
    with pytest.raises(UserError, match="half of a character"):
        from_files({**vocabulary, **beside})
    with pytest.raises(UserError, match=r"half of a character \('\\ud800'\)"):
        from_files(vocabulary).encode(json.loads('"a\\ud800"'))


ONE_MORE = {"content": "<fact>", "special": True, "normalized": False}


@pytest.mark.parametrize(
    "beside",
    [
        {
            "tokenizer_config.json": made_pieces.settings(
                added_tokens_decoder={FACT: ONE_MORE}
            )
        },
        {"added_tokens.json": json.dumps({"<fact>": FACT}).encode()},
    ],
    ids=["settings", "added"],
)
def test_tokens_that_the_files_beside_add_are_tokens(vocabulary, beside):
    tokenizer = from_files({**vocabulary, **beside})
    assert tokenizer.encode("a<fact>").ids == [2, made_pieces.ID["a"], FACT]
    assert tokenizer.files() == {**vocabulary, **beside}


def test_a_token_that_the_model_has_no_embedding_of_is_refused(vocabulary):
    added = {"added_tokens.json": json.dumps({"<fact>": FACT}).encode()}
    tokenizer = from_files({**vocabulary, **added}, rows=FACT)
    assert tokenizer.encode("a").ids == [2, made_pieces.ID["a"]]
    with pytest.raises(
        UserError, match=f"'<fact>', the token {FACT}; expected .*{FACT} tok"
    ):
        tokenizer.encode("a<fact>")
    assert from_files({**vocabulary, **added}, rows=FACT + 1).encode("<fact>").ids[
        1:
    ] == [FACT]


def test_json_goes_before_sentencepiece():
    """As in `transformers`, which adds tokens there."""
    both = {**PROTO, **SETTINGS, "tokenizer.json": made_pieces.as_json("<fact>")}
    tokenizer = from_files(both)
    assert tokenizer.encode("a<fact>").ids == [2, made_pieces.ID["a"], FACT]
    assert tokenizer.files() == both


@pytest.mark.parametrize(("text", "index"), [("<fact>", FACT + 1), ("a", 7)])
def test_files_that_give_a_token_other_ids_are_refused(vocabulary, text, index):
    listed = made_pieces.settings(added_tokens_decoder={index: {"content": text}})
    with pytest.raises(
        UserError, match=rf"has '{text}' as token {index}; expected \d+"
    ):
        from_files({**vocabulary, "tokenizer_config.json": listed})


@pytest.mark.parametrize(
    "listed",
    [
        [],
        {"x": {"content": "<fact>"}},
        {"7": {}},
        {"7": 3},
        {str(FACT): "<fact>"},
        {"-7": {"content": "a"}},
        {"9" * 5000: {"content": "a"}},
    ],
)
def test_added_tokens_that_are_none_are_refused(vocabulary, listed):
    described = made_pieces.settings(added_tokens_decoder=listed)
    with pytest.raises(UserError, match="added_tokens"):
        from_files({**vocabulary, "tokenizer_config.json": described})


def test_an_older_file_names_special_tokens(vocabulary):
    """Also one that the vocabulary has as a word."""
    named = {"bos_token": {"content": "<bos>"}, "additional_special_tokens": ["▁p"]}
    beside = {"special_tokens_map.json": json.dumps(named).encode()}
    tokenizer = from_files({**vocabulary, "tokenizer_config.json": b"{}", **beside})
    assert tokenizer.bos == 2 and made_pieces.ID["▁p"] in tokenizer.markers


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        (None, None, (1,)),
        ([1, 5], None, (1, 5)),
        (5, [4, 1], (1, 5, 4)),
        (-1, 5, (1, 5)),
    ],
)
def test_a_text_ends_at_any_end_token(vocabulary, config, generation, ends):
    said = {"generation_config.json": json.dumps({"eos_token_id": generation}).encode()}
    assert from_files({**vocabulary, **said}, eos=config).ends == ends


@pytest.mark.parametrize("eos", ["1", [1, "2"], 1.0, True, {"a": 1}, 1 << 40])
def test_an_end_that_is_no_id_is_refused(vocabulary, eos):
    with pytest.raises(
        UserError, match=r"config\.json: eos_token_id is .* list of ids"
    ):
        from_files(vocabulary, eos=eos)


PREPEND = {"type": "Prepend", "prepend": "▁"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}


@pytest.mark.parametrize(
    "given_files",
    [
        {"tokenizer.model": made_pieces.proto(dummy=True)},
        *(
            {"tokenizer.json": made_pieces.as_json(**changes), **SETTINGS}
            for changes in (
                {"normalizer": PREPEND},
                {"normalizer": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}},
                {"pre_tokenizer": {**META, "split": False}},
                {"pre_tokenizer": {**META, "prepend_scheme": "always", "split": True}},
                {"pre_tokenizer": {**BYTES, "use_regex": True}},
            )
        ),
    ],
    ids=["proto", "prepend", "sequence", "first", "always", "bytes"],
)
def test_a_space_in_front_of_every_text_is_refused(given_files):
    with pytest.raises(UserError, match=r"puts a space in front .* Llama 2's does"):
        from_files(given_files)


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


@pytest.mark.parametrize("index", [-1, 10**9, 10**30, None, 2.0])
def test_a_bos_outside_of_the_vocabulary_is_none(index):
    with pytest.raises(UserError, match="without a BOS token"):
        JsonTokenizer(made(), {}, bos=index)


def test_ids_beyond_the_vocabulary_vanish(gemma):
    """Of both kinds: a model may have more rows than its tokenizer has tokens."""
    for tokenizer in (TOKENIZER, gemma.tokenizer):
        ids = tokenizer.encode("a").ids
        assert tokenizer.decode([*ids, 1 << 20]) == "a"
