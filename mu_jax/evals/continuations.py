"""How likely is a continuation, and what does the model continue with?

Rows are run in order of length, longest first, and padded to a power of two, so that a
few programs serve any number of requests and what does not fit is noticed at once.
What is longer than `context` loses its oldest tokens, never its BOS: without that a
Gemma writes nonsense.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.evals.pairs import Pair, spoken
from mu_jax.facts.tokens import batches, padded
from mu_jax.model.generate import begin, ended, go_on
from mu_jax.model.model import Model
from mu_jax.types import Progress, Tokenizer, silent

SHORTEST = 32
"""The narrowest batch; below it, padding costs less than another program."""
SPOTS = 64
"""Positions whose logits are computed at once: 67 MB of them in Gemma."""
PIECE = 32
"""Tokens generated between two looks for a stop string."""

Answered = MutableMapping[str, list]
"""What was answered before: a batch's digest, and its numbers or texts."""


def log_likelihoods(
    model: Model,
    pairs: Sequence[Pair],
    *,
    batch: int,
    context: int,
    progress: Progress = silent,
    journal: Answered | None = None,
) -> list[tuple[float, bool]]:
    """For each pair: log p(continuation | context), and whether it is the greedy one.

    In nats, summed over the continuation's tokens; one without any has 0. Pairs that
    differ in their last token only (the letters of a multiple choice) share a run.

    Args:
      batch: rows a forward pass.
      context: tokens a row, at most.
      journal: batches that it holds are not read again.

    Raises:
      UserError: a continuation longer than `context`.
    """
    kept = {} if journal is None else journal
    out: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    asked: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for at, (before, said) in enumerate(pairs):
        if len(said) > context:
            raise UserError(
                f"a continuation of {len(said)} tokens", f"at most {context}"
            )
        if said:
            whole = _fitted([*before, *said], context + 1)
            asked.setdefault((tuple(whole[:-1]), len(said)), []).append(at)
    keys = sorted(asked, key=lambda key: len(key[0]), reverse=True)
    options = _rounded(max(map(len, asked.values()), default=1), 1)
    progress("reading", 0, len(keys))
    for rows, n in batches(len(keys), min(batch, len(keys) or 1)):
        part = [keys[i] for i in rows]
        lasts = [[pairs[at][1][-1] for at in asked[key]] for key in part[:n]]
        if (name := _name("read", part, lasts, options)) not in kept:
            kept[name] = list(_judged(model, part, lasts, options, context))
        of_batch = [at for key in part[:n] for at in asked[key]]
        for i, at in enumerate(of_batch):
            logp, greedy = kept[name][2 * i : 2 * i + 2]
            out[at] = float(logp), bool(greedy)
        progress("reading", int(rows[n - 1]) + 1, len(keys))
    return out


def log_likelihood_of_text(
    model: Model,
    texts: Sequence[str],
    *,
    batch: int,
    context: int,
    progress: Progress = silent,
    journal: Answered | None = None,
) -> list[float]:
    """log p of each text behind BOS, in nats, however long it is.

    Every token is predicted once. A text longer than `context` is read in windows of so
    many tokens, each behind BOS; the last one is filled up with what precedes it.

    Raises:
      UserError: a text without a token.
    """
    pairs, owner = [], []
    for number, text in enumerate(texts):
        ids = spoken(model.tokenizer, text) if text else []
        for start in range(0, len(ids), context):
            before = [model.tokenizer.bos, *ids[:start]]
            pairs.append((before, ids[start : start + context]))
            owner.append(number)
    how = {"batch": batch, "context": context, "progress": progress}
    found = log_likelihoods(model, pairs, **how, journal=journal)
    totals = [0.0] * len(texts)
    for number, (value, _) in zip(owner, found, strict=True):
        totals[number] += value
    return totals


def continuations(
    model: Model,
    texts: Sequence[str],
    *,
    until: Sequence[str],
    length: int,
    batch: int,
    context: int,
    progress: Progress = silent,
    journal: Answered | None = None,
) -> list[str]:
    """What the model says greedily behind each text, cut before a string of `until`.

    Such a string may spell out control tokens, which are otherwise left out. It also
    ends at any of the tokenizer's `ends`.

    Args:
      length: tokens a continuation, at most.
      context: tokens of a text and its continuation together, at most.
      journal: batches that it holds are not generated again.

    Raises:
      UserError: `length` leaves no room for the text.
    """
    if length >= context:
        raise UserError(
            f"{length} tokens to generate",
            f"fewer than the context of {context}",
            "give a larger context, or another task",
        )
    kept = {} if journal is None else journal
    room = context - length
    ids = [_fitted(model.tokenizer.encode(text).ids, room) for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
    out = [""] * len(texts)
    progress("generating", 0, len(texts))
    for rows, n in batches(len(texts), min(batch, len(texts) or 1)):
        part = [ids[order[i]] for i in rows]
        if (name := _name("say", part, list(until), length)) not in kept:
            width = _rounded(max(map(len, part)), SHORTEST, context)
            prompts = padded(part, model.tokenizer.pad, width)
            kept[name] = _said(model, *prompts, until=until, length=length)
        for i, text in zip(rows[:n], kept[name], strict=False):
            out[order[i]] = text
        progress("generating", int(rows[n - 1]) + 1, len(texts))
    return out


def _name(*batch: Any) -> str:
    """What a journal calls a batch: a digest of all that is asked."""
    return hashlib.sha256(json.dumps(batch).encode()).hexdigest()[:32]


def _judged(model, part, lasts, options, context) -> Iterator[float | bool]:
    """Of each row and option in turn: log p, and whether it is the greedy one."""
    found = _read(model, part, lasts, options, context)
    for (ids, count), last, (logp, top) in zip(part, lasts, found, strict=False):
        inner = np.array(ids[len(ids) - count + 1 :], np.int32)
        start, greedy = logp[:-1, 0].sum(dtype=np.float64), top[:-1] == inner
        for option, token in enumerate(last):
            yield float(start + logp[-1, option])
            yield bool(greedy.all() and top[-1] == token)


def _read(model, keys, lasts, options, context) -> Iterator[tuple]:
    """Per row: log p of each continuation token, [token, option], and the likeliest.

    Of the last token those of all options; of the others in column 0.
    """
    ids = [key[0] for key in keys]
    width = _rounded(max(map(len, ids)), SHORTEST, context)
    tokens, valid = padded(ids, model.tokenizer.pad, width)
    stream = _stream(model.network, model.params, tokens, valid)
    spots, targets, counts = [], [], []
    for row, ((whole, count), last) in enumerate(zip(keys, lasts, strict=False)):
        counts.append(count)
        spots += [(row, at) for at in range(len(whole) - count, len(whole))]
        inner = whole[len(whole) - count + 1 :]
        targets += [[token] * options for token in inner]
        targets.append([*last, *[last[0]] * (options - len(last))])
    where, wanted = np.array(spots, np.int32), np.array(targets, np.int32)
    logp, top = [], []
    for some, n in batches(len(where), SPOTS):
        found = _measured(
            model.network, model.params, stream, where[some], wanted[some]
        )
        a, b = fetch(found)
        logp.append(a[:n])
        top.append(b[:n])
    ends = np.cumsum(counts)[:-1]
    parts = (np.split(np.concatenate(whole), ends) for whole in (logp, top))
    return zip(*parts, strict=True)


def _said(model, tokens, valid, *, until, length) -> list[str]:
    tokenizer = model.tokenizer
    piece = min(PIECE, length)
    room = -(-length // piece) * piece
    state = begin(model.network, model.params, tokens, valid, room=room)
    said = np.zeros((len(tokens), 0), np.int32)
    cuts: list[tuple[str, bool]] = []
    while said.shape[1] < length:
        state, new = go_on(model, state, piece, tokenizer.ends)
        said = np.concatenate([said, fetch(new)], axis=1)[:, :length]
        rows = [ended(row, tokenizer.ends) for row in said]
        cuts = [_cut(tokenizer, row, until) for row in rows]
        over = (len(row) < said.shape[1] for row in rows)
        if all(a or b for a, (_, b) in zip(over, cuts, strict=True)):
            break
    return [text for text, _ in cuts]


def _cut(
    tokenizer: Tokenizer, ids: Sequence[int], until: Sequence[str]
) -> tuple[str, bool]:
    """The text before the first string of `until`, and whether there is one.

    They are looked for with control tokens in the text, which is given without them.
    """
    markers = tokenizer.markers
    spell = lambda run: "".join(markers[i] for i in run)
    runs = [
        (marked, (spell if marked else tokenizer.decode)(list(run)))
        for marked, run in itertools.groupby(ids, markers.__contains__)
    ]
    shown = "".join(text for _, text in runs)
    found = [at for s in until if s and (at := shown.find(s)) >= 0]
    left, out = min(found, default=len(shown)), ""
    for marked, text in runs:
        out += "" if marked else text[:left]
        left = max(0, left - len(text))
    return out, bool(found)


def _fitted(ids: Sequence[int], room: int) -> list[int]:
    """BOS and the last of the other ids, `room` in all."""
    return list(ids) if len(ids) <= room else [ids[0], *ids[len(ids) - room + 1 :]]


def _rounded(n: int, least: int, most: int | None = None) -> int:
    """`n` rounded up to a power of two, within bounds."""
    rounded = max(least, 1 << (n - 1).bit_length())
    return rounded if most is None else max(n, min(rounded, most))


@functools.partial(jax.jit, static_argnames="network")
def _stream(network, params, tokens, valid):
    return network.stream(params, tokens, valid)[0]


@functools.partial(jax.jit, static_argnames="network")
def _measured(network, params, stream, where, wanted):
    logits = network.logits(params, stream[where[:, 0], where[:, 1]])
    logp = jnp.take_along_axis(logits, wanted, axis=1)
    total = jax.nn.logsumexp(logits, axis=1, keepdims=True)
    return logp - total, logits.argmax(axis=1).astype(jnp.int32)
