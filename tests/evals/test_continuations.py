"""Likelihoods and continuations are those of plain forward passes, one text a time."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.evals.continuations import (
    continuations,
    log_likelihood_of_text,
    log_likelihoods,
)
from mu_jax.facts.tokens import padded
from mu_jax.model.generate import generate
from mu_jax.testing import ToyTokenizer

pytestmark = pytest.mark.usefixtures("quick")
CONTEXT = 40


class Numbers(ToyTokenizer):
    """Says every id as a word, so that all that is generated can be read."""

    def decode(self, ids):
        return "".join(f" {int(i)}" for i in ids)


@pytest.fixture(scope="module")
def model(tiny):
    return dataclasses.replace(tiny, tokenizer=Numbers())


@functools.partial(jax.jit, static_argnames="network")
def _logp(network, params, tokens, valid):
    stream, _ = network.stream(params, tokens, valid)
    return jax.nn.log_softmax(network.logits(params, stream[0]))


def plain(model, before, said):
    """log p(said | before) and whether it is greedy, position by position."""
    tokens, valid = padded([[*before, *said]], 0, 64)
    logp = np.asarray(_logp(model.network, model.params, tokens, valid))
    rows = logp[len(before) - 1 : len(before) + len(said) - 1]
    greedy = bool((rows.argmax(axis=1) == said).all())
    return float(sum(rows[i, token] for i, token in enumerate(said))), greedy


@pytest.fixture(scope="module")
def pairs(model):
    """Among them some that share a run, an empty one and what the model would say."""
    rng = np.random.default_rng(0)
    ids = lambda n: rng.integers(2, 512, n).tolist()
    shared, start = [1, *ids(7)], ids(2)
    made = [([1, *ids(n)], ids(k)) for n, k in ((3, 1), (20, 6), (1, 4), (33, 1))]
    made += [(shared, [*start, last]) for last in (5, 6, 7)] + [(shared, [])]
    said = generate(model, *padded([shared], 0), 3)[0].tolist()
    return [*made, (shared, said), (shared, [*said[:2], said[2] ^ 1])]


def test_likelihoods_are_those_of_one_text_at_a_time(model, pairs):
    found = log_likelihoods(model, pairs, batch=4, context=CONTEXT)
    for (value, greedy), (before, said) in zip(found, pairs, strict=True):
        wanted, best = plain(model, before, said) if said else (0.0, True)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)
        assert greedy is best
    assert [greedy for _, greedy in found[-3:]] == [True, True, False]
    assert log_likelihoods(model, [], batch=4, context=CONTEXT) == []


def test_the_batch_changes_nothing(model, pairs):
    few, many = (
        log_likelihoods(model, pairs, batch=n, context=CONTEXT) for n in (4, 64)
    )
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-5)


def test_a_long_context_loses_its_oldest_tokens_but_bos(model):
    ids = np.random.default_rng(1).integers(2, 512, 60).tolist()
    [(value, _)] = log_likelihoods(model, [([1, *ids], [3, 4])], batch=4, context=20)
    # 20 tokens are read, all but the last one said: BOS, 18 of the context, and 3.
    wanted, _ = plain(model, [1, *ids[-18:]], [3, 4])
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    with pytest.raises(UserError, match="continuation of 21 tokens; expected at most"):
        log_likelihoods(model, [([1], ids[:21])], batch=4, context=20)


def test_every_token_of_a_long_text_is_predicted_once(model):
    text = " ".join(f"word{i}" for i in range(50))
    bos, *ids = model.tokenizer.encode(text).ids
    wanted = plain(model, [bos], ids[:20])[0]  # the first window, then fuller ones
    wanted += plain(model, [bos], ids[20:40])[0]
    wanted += plain(model, [bos, *ids[len(ids) - 20 : 40]], ids[40:])[0]
    found = log_likelihood_of_text(model, [text, ""], batch=4, context=20)
    np.testing.assert_allclose(found, [wanted, 0], rtol=1e-5)


def test_a_text_without_any_token_is_refused(model):
    with pytest.raises(UserError, match="'é', of which the tokenizer makes no token"):
        log_likelihood_of_text(model, ["one", "é"], batch=4, context=20)


def test_continuations_end_at_a_string_or_after_so_many_tokens(model):
    texts = ["one two three four", "five", "six seven"]
    ids = [model.tokenizer.encode(text).ids for text in texts]
    said = generate(model, *padded(ids, 0, 32), 36)
    how = {"length": 36, "batch": 3, "context": 100}
    whole = [model.tokenizer.decode(row) for row in said]
    assert continuations(model, texts, until=(), **how) == whole
    stop = f" {said[1, 4]}"
    found = continuations(model, texts, until=("", stop), **how)
    assert found == [text.split(stop)[0] for text in whole]
    assert len(found[1]) < len(whole[1])


class Chat(Numbers):
    """Some of the numbers are control tokens: `<turn>`, say."""

    def __init__(self, markers, ends):
        super().__init__()
        self.markers, self.ends = markers, ends

    def decode(self, ids):
        return super().decode([i for i in ids if i not in self.markers])


@pytest.mark.parametrize("ends", [(), (511,)])
def test_a_control_token_is_a_stop_string_and_no_text(model, ends):
    """Alone, with text behind it, or as any of several ends."""
    text, how = "one two three four", {"length": 36, "batch": 1, "context": 100}
    ids = model.tokenizer.encode(text).ids
    said = generate(model, *padded([ids], 0, 32), 36)[0].tolist()
    think, _, turn = list(dict.fromkeys(said))[:3]
    at = said.index(turn)
    chat = Chat({think: "<think>", turn: "<turn>"}, ends)
    asked = dataclasses.replace(model, tokenizer=chat)
    wanted = chat.decode(said[:at])
    for stop in ("<turn>", f"<turn> {said[at + 1]}"):
        assert continuations(asked, [text], until=("no", stop), **how) == [wanted]
    [whole] = continuations(asked, [text], until=("<other>",), **how)
    assert whole == chat.decode(said) != wanted
    if ends:
        both = dataclasses.replace(asked, tokenizer=Chat(chat.markers, (510, turn)))
        assert continuations(both, [text], until=(), **how) == [wanted]


def test_a_long_text_makes_room_for_its_continuation(model):
    ids = model.tokenizer.encode(" ".join(f"w{i}" for i in range(60))).ids
    text = " ".join(f"w{i}" for i in range(60))
    how = {"until": (), "length": 36, "batch": 3}
    [found] = continuations(model, [text], context=60, **how)
    kept = [ids[0], *ids[-23:]]
    said = generate(model, *padded([kept] * 3, 0, 32), 36)[0]
    assert found == model.tokenizer.decode(said)
    with pytest.raises(UserError, match="36 tokens to generate; expected fewer than"):
        continuations(model, [text], context=36, **how)
