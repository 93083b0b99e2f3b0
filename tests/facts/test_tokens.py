"""Questions to tokens: subjects, ends of rows, prefixes, batches."""

import dataclasses

import made_pieces
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mu_jax.errors import UserError
from mu_jax.facts.counterfact_formats import Train
from mu_jax.facts.sports import Sports
from mu_jax.facts.templates import Template
from mu_jax.facts.tokens import (
    batched,
    concatenate,
    distinct,
    first_token,
    prompts,
    shared_prefix,
    unscorable,
)
from mu_jax.model.json_tokenizer import JsonTokenizer
from mu_jax.model.sentence_pieces import SentencePiece
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Fact, Question

NAMES = ("Michael Jordan", "Pele", "Ichiro Suzuki", "Juan Carlos Del Toro")
TEMPLATES = [f for f in Sports().templates if isinstance(f, Template)]
WORDS = 1 << 20  # ids enough that no two words share one


def fact(subject: str, answer=" basketball", counterfact=" football") -> Fact:
    return Fact(subject, subject, "plays", answer, counterfact, "")


def asked(template: Template, tokenizer=None, names=NAMES, **kwargs):
    tokenizer = tokenizer or ToyTokenizer(WORDS)
    return prompts([template(fact(n)) for n in names], tokenizer, **kwargs)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_the_subject_mask_decodes_to_the_subject(template):
    tokenizer = ToyTokenizer(WORDS)
    rows = asked(template, tokenizer)
    for name, tokens, mask in zip(NAMES, rows.tokens, rows.subject, strict=True):
        assert tokenizer.decode(tokens[mask]).strip() == name


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True), min_size=1))
def test_the_mask_covers_a_subject_of_any_number_of_words(words):
    name, tokenizer = " ".join(words), ToyTokenizer(WORDS)
    rows = prompts([TEMPLATES[0](fact(name))], tokenizer)
    assert tokenizer.decode(rows.tokens[0, rows.subject[0]]).strip() == name


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_rows_end_where_the_answer_begins(template):
    tokenizer = ToyTokenizer(WORDS)
    rows = asked(template, tokenizer)
    for i, name in enumerate(NAMES):
        question = template(fact(name))
        n = rows.last[i] + 1
        assert rows.tokens[i, :n].tolist() == tokenizer.encode(question.text).ids
        assert rows.valid[i].tolist() == [True] * n + [False] * (len(rows.valid[i]) - n)
        assert (rows.tokens[i, n:] == tokenizer.pad).all()
        whole = tokenizer.encode(question.text + question.answer).ids
        assert whole[: n + 1] == [*rows.tokens[i, :n], rows.answer[i]]
        assert rows.foil[i] == tokenizer.encode(question.foil).ids[1]
        assert rows.options[i].tolist() == [
            tokenizer.encode(o).ids[1] for o in question.options
        ]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_every_row_has_exactly_one_bos(template):
    tokenizer = ToyTokenizer(WORDS)
    rows = asked(template, tokenizer)
    assert ((rows.tokens == tokenizer.bos).sum(axis=1) == 1).all()
    assert (rows.tokens[:, 0] == tokenizer.bos).all()


@pytest.fixture(scope="module")
def sentencepiece():
    """Of Gemma's kind: bytes, a few words, control tokens."""
    return SentencePiece(made_pieces.proto())


@pytest.mark.parametrize(
    "name", ["Pele", "Andrés Iniesta", "王貞治", "Jürgen 😀 Klopp"]
)
def test_the_mask_covers_subjects_spelt_in_bytes(sentencepiece, name):
    options = ((" basketball", "basketball"), (" football", "football"))
    template = Template("bytes", "Fact: {subject} plays", options)
    rows = prompts([template(fact(name))], sentencepiece)
    said = sentencepiece.decode(rows.tokens[0, rows.subject[0]])
    assert said.strip() == name


@given(text=st.text(max_size=30))
def test_sentencepiece_gives_exactly_one_bos_or_an_error(sentencepiece, text):
    try:
        ids, spans = sentencepiece.encode(text)
    except UserError:
        return
    assert ids[0] == sentencepiece.bos and ids.count(sentencepiece.bos) == 1
    assert len(ids) == len(spans) and spans[0] == (0, 0)
    edges = [0, *(edge for span in spans[1:] for edge in span), len(text)]
    assert edges == sorted(edges)


def test_a_tokenizer_without_bos_is_refused(sentencepiece):
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.ParseFromString(sentencepiece.proto)
    model.trainer_spec.bos_id = -1
    model.trainer_spec.bos_piece = "<none>"
    with pytest.raises(UserError, match="without a BOS token"):
        SentencePiece(model.SerializeToString())


def test_no_questions_are_refused():
    with pytest.raises(UserError, match="no questions"):
        prompts([], ToyTokenizer(WORDS))


def test_options_with_the_same_first_token_are_refused():
    same = ((" golf", " golf"), (" golf club", " golf club"))
    template = Template("plain", "{subject} plays", same)
    question = template(fact("Pele", " golf", " golf club"))
    with pytest.raises(UserError, match=r"Pele.*golf, golf club.*same token"):
        prompts([question], ToyTokenizer(WORDS))


def test_a_prompt_longer_than_the_context_is_refused():
    n = asked(TEMPLATES[0]).tokens.shape[1]
    assert asked(TEMPLATES[0], context=n).tokens.shape[1] == n
    with pytest.raises(UserError, match=rf"prompt of {n} tokens.*at most {n - 1}"):
        asked(TEMPLATES[0], context=n - 1)
    with pytest.raises(UserError, match=rf"prompt of {n} tokens.*at most {n - 1}"):
        asked(TEMPLATES[0], length=n - 1)


def test_a_longer_length_only_adds_padding():
    short, long = asked(TEMPLATES[0]), asked(TEMPLATES[0], length=40)
    n = short.tokens.shape[1]
    assert long.tokens.shape == (len(NAMES), 40)
    assert (long.tokens[:, :n] == short.tokens).all()
    assert not long.valid[:, n:].any() and not long.subject[:, n:].any()
    assert (long.last == short.last).all()


def test_a_subject_outside_the_prompt_is_refused():
    question = TEMPLATES[0](fact("Pele"))
    moved = dataclasses.replace(question, start=len(question.text) + 1)
    with pytest.raises(UserError, match=r"'Pele' has no token.*correct the fact"):
        prompts([moved], ToyTokenizer(WORDS))


def test_a_question_without_a_subject_has_an_empty_mask_and_a_prefix():
    named = TEMPLATES[0](fact("Pele"))
    bare = dataclasses.replace(named, subject="", start=0)
    rows = prompts([bare, named], ToyTokenizer(WORDS))
    assert rows.subject.any(axis=1).tolist() == [False, True]
    alone = prompts([bare, bare], ToyTokenizer(WORDS))
    assert not alone.subject.any()
    assert shared_prefix(alone) == alone.last[0]
    assert shared_prefix(rows, alone) == rows.subject[1].argmax()


def test_questions_with_more_and_fewer_options_do_not_mix():
    question = TEMPLATES[0](fact("Pele"))
    fewer = dataclasses.replace(question, options=question.options[:3])
    with pytest.raises(UserError, match="with 3 and with 4 options in one batch"):
        prompts([question, fewer], ToyTokenizer(WORDS))


def test_two_options_with_one_first_token_are_refused():
    question = TEMPLATES[0](fact("Pele"))
    options = (*question.options[:3], " football pitch")
    same = dataclasses.replace(question, subject="", options=options)
    with pytest.raises(UserError, match=r"football pitch begin with the same token"):
        prompts([same], ToyTokenizer(WORDS))


def test_facts_whose_answers_begin_alike_are_left_out():
    facts = [
        fact("a", " New York", " New Delhi"),
        fact("b", " Paris", " Rome"),
        fact("c", " Paris", " New York"),
    ]
    kept = distinct(facts, ToyTokenizer(WORDS))
    assert kept == facts[1:]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (" Rome", " Rome"),
        ("巴黎", "巴黎"),
        (" 서울", " 서울"),
        (" (", " ("),
        (" 1879", None),
        (" 巴黎", None),
        (" \n", None),
        ("", None),
    ],
)
def test_a_first_token_of_white_space_alone_says_nothing(gemma_tokenizer, text, first):
    found = first_token(text, gemma_tokenizer)
    assert (found and gemma_tokenizer.decode([found])) == first


@pytest.fixture(scope="module")
def byte_pairs():
    """Of SmolLM's kind: bytes, and two pairs of them: " a", and " " with half a П."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["Ġa", "ĠÐ"]
    ids = {text: i for i, text in enumerate(["<bos>", *letters, *merged])}
    made = Tokenizer(models.BPE(ids, [tuple(text) for text in merged]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return JsonTokenizer(made.to_str().encode(), bos=0)


PART, BLANK = "a part of a character", "a token of white space alone"


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("byte_pairs", "ローマ", PART),
        ("byte_pairs", " Париж", PART),
        ("byte_pairs", "é", PART),
        ("byte_pairs", " 파리", BLANK),
        ("byte_pairs", " 12", BLANK),
        ("byte_pairs", "", "no token"),
        ("byte_pairs", " aé", ""),
        ("sentencepiece", "é", PART),
        ("sentencepiece", " é", BLANK),
        ("sentencepiece", " p", ""),
    ],
)
def test_a_part_of_a_character_says_nothing(request, kind, text, why):
    """パリ begins with the same token as ローマ."""
    tokenizer = request.getfixturevalue(kind)
    assert why in unscorable(fact("a", text, "b"), tokenizer)
    found = first_token(text, tokenizer)
    assert found == (None if why else tokenizer.encode(text).ids[1])
    if why:
        with pytest.raises(UserError, match=f"which begins with {why}"):
            prompts([Question("S", "", 0, text, "b", (text, "b"))], tokenizer)


SAME = [(" Caf\u00e9", " Cafe\u0301"), (" x", " X"), (" x y", "x  y"), (" x", "x")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_answers_that_are_the_same_are_not_asked_for(byte_pairs, one, other):
    for tokenizer in (ToyTokenizer(WORDS), byte_pairs):
        assert unscorable(fact("a", one, other), tokenizer)
        assert distinct([fact("a", one, other)], tokenizer) == []
    assert "but for case, accents" in unscorable(fact("a", "x", "X"), byte_pairs)


def test_distractors_that_are_another_answer_are_taken_away():
    wrong = (" PARIS", " Bonn", " rome", " bonn", " Oslo")
    one = dataclasses.replace(fact("a", " Paris", " Rome"), distractors=wrong)
    (kept,) = distinct([one], ToyTokenizer(WORDS))
    assert kept.distractors == (" Bonn", " Oslo")


YEARS = [fact("a", " 3021", " Rome"), fact("b", " Rome", " 3021")]


@pytest.mark.parametrize("one", [*YEARS, fact("c", " 1879", " 1880")])
def test_a_fact_that_begins_with_white_space_is_not_asked(gemma_tokenizer, one):
    assert "white space alone" in unscorable(one, gemma_tokenizer)
    assert distinct([one], gemma_tokenizer) == []
    with pytest.raises(
        UserError, match=r"the answer ' \d+', which begins with a token"
    ):
        prompts([Train()(one)], gemma_tokenizer)


def test_distractors_and_rivals_that_begin_with_white_space_are_taken_away(
    gemma_tokenizer,
):
    one = dataclasses.replace(
        fact("Ada", " Paris", " Rome"), distractors=(" 12", " Oslo"), rival="1984"
    )
    (kept,) = distinct([one], gemma_tokenizer)
    assert kept == dataclasses.replace(one, distractors=(" Oslo",), rival="")
    (kept,) = distinct(
        [dataclasses.replace(one, subject="12", rival="Bo")], gemma_tokenizer
    )
    assert kept.rival == ""


def test_distractors_that_begin_like_another_answer_are_taken_away():
    wrong = (" Paris Texas", " London", " Rome Georgia", " London Ohio", " Bonn")
    one = dataclasses.replace(fact("a", " Paris", " Rome"), distractors=wrong)
    (kept,) = distinct([one], ToyTokenizer(WORDS))
    assert kept == dataclasses.replace(one, distractors=(" London", " Bonn"))


def test_a_rival_that_begins_like_the_subject_is_taken_away():
    both = [
        dataclasses.replace(fact("Ada Bell"), rival=r) for r in ("Ada Cole", "Bo Bell")
    ]
    kept = distinct(both, ToyTokenizer(WORDS))
    assert [f.rival for f in kept] == ["", "Bo Bell"]


words = st.sampled_from([" a b", " a c", " b", " c d", " c", " d", " e"])


@given(st.lists(st.tuples(words, words, st.lists(words, max_size=5)), max_size=6))
def test_what_distinct_keeps_can_be_asked_with_all_its_answers(drawn):
    tokenizer = ToyTokenizer(WORDS)
    facts = [
        dataclasses.replace(fact("S", answer, wrong), distractors=tuple(others))
        for answer, wrong, others in drawn
    ]
    kept = distinct(facts, tokenizer)
    for one in kept:
        options = (one.answer, one.counterfact, *one.distractors)
        prompts([Question("S", "S", 0, *options[:2], options)], tokenizer)
    differ = [f for f in facts if f.answer.split()[0] != f.counterfact.split()[0]]
    assert [f.answer for f in kept] == [f.answer for f in differ]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_the_shared_prefix_is_shared_and_ends_before_every_subject(template):
    rows = asked(template)
    n = shared_prefix(rows)
    assert n > 0
    assert (rows.tokens[:, :n] == rows.tokens[0, :n]).all()
    assert rows.valid[:, :n].all() and not rows.subject[:, :n].any()
    assert (n <= rows.last).all()
    assert rows.subject[:, n].any() or len(set(rows.tokens[:, n])) > 1


def test_a_prefix_of_several_batches_is_a_prefix_of_each():
    one, two = asked(TEMPLATES[0], names=NAMES[:2]), asked(TEMPLATES[1])
    n = shared_prefix(one, two)
    assert n <= min(shared_prefix(one), shared_prefix(two))
    assert (one.tokens[:, :n] == two.tokens[0, :n]).all()
    assert n == shared_prefix(two, one)


def test_equal_rows_share_all_but_what_stands_behind_the_subject():
    rows = asked(TEMPLATES[0], names=("Pele", "Pele"))
    assert shared_prefix(rows) == rows.subject[0].argmax()


def test_a_prefix_leaves_a_token_of_every_row_even_without_subjects():
    rows = asked(TEMPLATES[0], names=("Pele", "Pele"))
    rows = rows._replace(subject=np.zeros_like(rows.subject))
    assert shared_prefix(rows) == rows.last[0]


@given(total=st.integers(1, 30), size=st.integers(1, 12))
def test_batches_cover_all_rows_in_order_and_are_of_one_size(total, size):
    rows = asked(TEMPLATES[0], names=[f"Player{i}" for i in range(total)])
    parts = list(batched(rows, size))
    assert {part.tokens.shape[0] for part, _ in parts} == {size}
    back = concatenate([part.rows(slice(n)) for part, n in parts])
    for field, whole in zip(back, rows, strict=True):
        assert np.array_equal(field, whole)
