"""Contexts and continuations as tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mu_jax.errors import UserError
from mu_jax.evals.pairs import pair
from mu_jax.model.tokenizer import JsonTokenizer
from mu_jax.testing import ToyTokenizer


@pytest.mark.parametrize(
    ("context", "continuation", "kept"),
    [("one two", " three", 3), ("one two ", "three", 3), ("", "three", 1)],
)
def test_spaces_go_over_to_the_continuation(context, continuation, kept):
    tokenizer = ToyTokenizer()
    before, said = pair(tokenizer, context, continuation)
    assert before + said == tokenizer.encode(context + continuation).ids
    assert len(before) == kept and len(said) == 1


def byte_pairs(*merges: str) -> JsonTokenizer:
    """A byte-level tokenizer that joins these pairs; `<s>` is its BOS."""
    pairs = [tuple(merge.split("+")) for merge in merges]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *("".join(pair) for pair in pairs)]
    made = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<s>"])
    return JsonTokenizer(made.to_str().encode(), bos=len(names))


MERGING = byte_pairs("a+b", "ab+c", "b+b", "Ġ+a", "Ġa+b", "å+¥", "å¥+½", "Ċ+Ċ")


@given(context=st.text("abc 好\n"), continuation=st.text("abc 好\n", min_size=1))
def test_all_that_is_said_has_tokens_of_its_own(context, continuation):
    """Also where a token of the two as one text would begin in one and end in the
    other: neither part of it is left out, nor given away."""
    kept = context.rstrip()
    before, said = pair(MERGING, context, continuation)
    assert before == MERGING.encode(kept).ids
    assert MERGING.decode(said) == context[len(kept) :] + continuation


@pytest.mark.parametrize(
    ("context", "continuation", "said"),
    [
        ("hello wor", "ld", ["ld"]),
        ("hello wor", "king", ["king"]),
        ("hello wor", "ldwide web", ["ld", "wide", " web"]),
        ("你", "好", ["好"]),
        ("hello", " world", [" world"]),
    ],
)
def test_gemma_says_a_part_of_a_word_by_its_own_tokens(
    gemma_tokenizer, context, continuation, said
):
    before, ids = pair(gemma_tokenizer, context, continuation)
    assert before == gemma_tokenizer.encode(context).ids
    assert [gemma_tokenizer.decode([i]) for i in ids] == said


def test_a_text_without_any_token_is_refused_and_no_text_is_certain():
    """The toy tokenizer knows no letters but English ones."""
    tokenizer = ToyTokenizer()
    assert pair(tokenizer, "one", "") == (tokenizer.encode("one").ids, [])
    with pytest.raises(UserError, match="'é', of which the tokenizer makes no token"):
        pair(tokenizer, "one", "é")
