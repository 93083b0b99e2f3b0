"""What a model says to a prompt: its own probabilities, whatever is asked beside it."""

import jax
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.tokens import padded
from mu_jax.model.generate import _go_on, begin, ended, generate

PROMPTS = ("Tower1 lies in", "The city of House7 House8 is", "Tower1")


def log_p(model, text):
    """Of the next token, from a pass over the prompt alone."""
    ids = np.array([model.tokenizer.encode(text).ids])
    stream, _ = model.network.stream(model.params, ids, np.ones_like(ids, bool))
    logits = model.network.logits(model.params, stream[:, -1])
    return np.asarray(jax.nn.log_softmax(logits))[0]


def test_the_likeliest_tokens_are_the_models(tiny):
    for text, answer in zip(PROMPTS, tiny.ask(*PROMPTS, top=3), strict=True):
        expected = log_p(tiny, text)
        best = np.argsort(-expected, kind="stable")[:3]
        assert [t for t, _ in answer.next] == [tiny.tokenizer.decode([i]) for i in best]
        np.testing.assert_allclose(
            [p for _, p in answer.next], np.exp(expected[best]), rtol=1e-4
        )


def test_a_prompt_is_answered_alike_alone_and_among_others(tiny):
    together = tiny.ask(*PROMPTS, length=5)
    for text, answer in zip(PROMPTS, together, strict=True):
        (alone,) = tiny.ask(text, length=5)
        assert alone.said == answer.said == tiny.generate(text, 5)
        np.testing.assert_allclose(
            [p for _, p in alone.next], [p for _, p in answer.next], rtol=1e-4
        )
        ids, ends = tiny.tokenizer.encode(text).ids, tiny.tokenizer.ends
        said = generate(tiny, *padded([ids], tiny.tokenizer.pad), 5, ends)[0]
        assert answer.said == tiny.tokenizer.decode(ended(said, ends))


def test_options_have_the_probability_of_their_first_token(tiny):
    (answer,) = tiny.ask("Tower1 lies in", options=(" Paris", " "))
    token = tiny.tokenizer.encode(" Paris").ids[1]
    expected = np.exp(log_p(tiny, "Tower1 lies in")[token])
    np.testing.assert_allclose(answer.options[" Paris"], expected, rtol=1e-4)
    assert answer.options[" "] is None


def test_one_program_serves_prompts_of_like_length(tiny):
    tiny.ask("Tower1", length=3)
    before = begin._cache_size(), _go_on._cache_size()
    tiny.ask("Tower2 lies in", length=3)
    assert (begin._cache_size(), _go_on._cache_size()) == before


def test_tokens_are_the_pieces_of_a_text(tiny):
    assert "".join(tiny.tokens("Tower1 lies in")) == "Tower1 lies in"
    assert "tiny" in repr(tiny) and "parameters" in repr(tiny)


@pytest.mark.parametrize(
    ("prompts", "how", "said"),
    [
        ((), {}, "an empty prompt"),
        (("",), {}, "an empty prompt"),
        (("x",), {"top": 0}, "at least 1 each"),
        (("x",), {"length": 1 << 20}, "the model's context"),
    ],
)
def test_what_cannot_be_asked_is_one_line(tiny, prompts, how, said):
    with pytest.raises(UserError, match=said):
        tiny.ask(*prompts, **how)
