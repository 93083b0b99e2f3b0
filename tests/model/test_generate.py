"""Generating from a memory says what running everything anew would say."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from rounding import double

from mu_jax.devices.sharding import Mesh
from mu_jax.errors import UserError
from mu_jax.facts.tokens import padded
from mu_jax.model.generate import begin, ended, generate, go_on
from mu_jax.model.network import Network, take_last
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec

pytestmark = pytest.mark.usefixtures("quick")
LENGTHS, WIDTH, ROOM = (9, 2, 6), 9, 12


def windowed(generation):
    """A tiny Gemma whose windows are shorter than what is generated."""
    spec = tiny_spec(generation, kv_heads=2)
    return dataclasses.replace(spec, windows=tuple(w and 4 for w in spec.windows))


@pytest.fixture(scope="module", params=["gemma1", "gemma2", "gemma3", "llama3"])
def model(request):
    kind = request.param
    return tiny_model(tiny_llama() if kind == "llama3" else windowed(int(kind[-1])))


@pytest.fixture(scope="module")
def prompts():
    """Rows of different lengths, padded with a token that means something."""
    tokens = np.random.default_rng(1).integers(2, 512, (3, WIDTH)).astype(np.int32)
    return tokens, np.arange(WIDTH) < np.array(LENGTHS)[:, None]


@functools.partial(jax.jit, static_argnames="network")
def next_logits(network, params, tokens, valid):
    stream, _ = network.stream(params, tokens, valid)
    last = valid.shape[1] - 1 - valid[:, ::-1].argmax(axis=1)
    return network.logits(params, take_last(stream, last))


def anew(model, tokens, valid, length):
    """Said tokens and the logits of each, every sequence run from its start."""
    rows = [list(t[v]) for t, v in zip(tokens, valid, strict=True)]
    width = max(map(len, rows)) + length
    said, logits = [], []
    for _ in range(length):
        whole = padded(rows, 0, width)
        logits.append(next_logits(model.network, model.params, *whole))
        said.append(np.asarray(logits[-1].argmax(axis=1)))
        for row, token in zip(rows, said[-1], strict=True):
            row.append(int(token))
    return np.stack(said, axis=1), np.stack(logits)


def test_memory_changes_nothing(float64, model, prompts):
    """The same tokens, and the same logits at every step."""
    model = double(model)
    said, logits = anew(model, *prompts, ROOM)
    state = begin(model.network, model.params, *prompts, room=ROOM)
    for step in range(ROOM):
        np.testing.assert_allclose(state.logits, logits[step], rtol=0, atol=1e-12)
        state, token = go_on(model, state, 1)
        np.testing.assert_array_equal(token[:, 0], said[:, step])


def test_rows_do_not_see_one_another(tiny, prompts):
    together = generate(tiny, *prompts, 6)
    tokens, valid = (a[1:2, : LENGTHS[1]] for a in prompts)
    np.testing.assert_array_equal(generate(tiny, tokens, valid, 6)[0], together[1])


def test_pieces_make_the_whole(tiny, prompts):
    state = begin(tiny.network, tiny.params, *prompts, room=6)
    state, first = go_on(tiny, state, 4)
    _, second = go_on(tiny, state, 2)
    whole = generate(tiny, *prompts, 6)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)


def test_a_row_stops_at_a_token_and_the_others_go_on(tiny, prompts):
    free = generate(tiny, *prompts, 6)
    stop = int(free[0, 2])
    said = generate(tiny, *prompts, 6, stop=(stop,))
    for row, wanted in zip(said, free, strict=True):
        end = list(wanted).index(stop) + 1 if stop in wanted else 6
        np.testing.assert_array_equal(row[:end], wanted[:end])
        assert (row[end:] == tiny.tokenizer.pad).all()
    assert (said[0, 3:] == tiny.tokenizer.pad).all()


def test_a_text_ends_before_its_first_end_token():
    row = np.array([5, 6, 106, 7, 1])
    assert ended(row, (1, 106)) == [5, 6]
    assert ended(row, ()) == row.tolist()


def test_what_does_not_fit_is_refused(tiny, prompts):
    with pytest.raises(UserError, match=r"257 tokens; expected at most 256"):
        generate(tiny, *prompts, 256 - max(LENGTHS) + 1)


def test_the_real_model_says_what_it_would_anew(gemma):
    texts = ("Fact: Tiger Woods plays the sport of", "1, 2, 3, 4, 5, 6,")
    ids = [gemma.tokenizer.encode(text).ids for text in texts]
    prompts = padded(ids, gemma.tokenizer.pad)
    said = generate(gemma, *prompts, 4)
    np.testing.assert_array_equal(said, anew(gemma, *prompts, 4)[0])
    golf, count = (gemma.tokenizer.decode(row) for row in said)
    assert golf.startswith(" golf") and count.startswith(" 7,")


def test_a_mesh_changes_nothing(tiny, prompts):
    """Placed by a layout, be it of one device."""
    layout = Mesh(1, 1, 1).layout(jax.devices()[:1])
    placed = dataclasses.replace(tiny, network=Network(tiny.spec, layout))
    ours, theirs = generate(placed, *prompts, 6), generate(tiny, *prompts, 6)
    np.testing.assert_array_equal(ours, theirs)
