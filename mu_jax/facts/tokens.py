"""Questions to token arrays: where the subject stands, which token answers."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from mu_jax.errors import UserError
from mu_jax.facts.groups import alike
from mu_jax.types import Encoding, Fact, Prompts, Question, Tokenizer


def prompts(
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    *,
    length: int | None = None,
    context: int | None = None,
) -> Prompts:
    """Questions as one padded batch; see `types.Prompts` for a worked example.

    Args:
      length: pad every row to this many tokens; by default to the longest.
      context: how many tokens the model takes at most.

    Raises:
      UserError: a prompt longer than `length` or `context`, a named subject that has no
        token of its own, an option without a `first_token`, two that begin with the
        same token, or questions with different numbers of options.
    """
    if not questions:
        raise UserError("no questions", "at least one", "choose another split")
    encodings = [tokenizer.encode(q.text) for q in questions]
    width = length or max(len(e.ids) for e in encodings)
    _fits(questions, encodings, length, context)
    shape = (len(questions), width)
    tokens = np.full(shape, tokenizer.pad, np.int32)
    valid, subject = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, (question, encoding) in enumerate(zip(questions, encodings, strict=True)):
        n = len(encoding.ids)
        tokens[row, :n], valid[row, :n] = encoding.ids, True
        subject[row, :n] = _subject(question, encoding)
    said = {o for q in questions for o in (*q.options, q.answer, q.foil)}
    firsts = {text: _scorable(text, tokenizer) for text in said}
    return Prompts(
        tokens,
        valid,
        subject,
        np.array([firsts[q.answer] for q in questions], np.int32),
        np.array([firsts[q.foil] for q in questions], np.int32),
        _options(questions, firsts),
    )


def padded(
    ids: Sequence[Sequence[int]], pad: int, width: int | None = None
) -> tuple[Int[np.ndarray, "batch seq"], Bool[np.ndarray, "batch seq"]]:
    """Token ids as one batch, padded on the right, and which of them are real.

    Args:
      width: of the batch; by default that of the longest row.
    """
    lengths = np.array([len(row) for row in ids])
    valid = np.arange(width or lengths.max()) < lengths[:, None]
    tokens = np.full(valid.shape, pad, np.int32)
    tokens[valid] = np.concatenate([np.asarray(row, np.int32) for row in ids])
    return tokens, valid


def _fits(
    questions: Sequence[Question],
    encodings: Sequence[Encoding],
    length: int | None,
    context: int | None,
) -> None:
    """Raises UserError for a prompt longer than it may be."""
    longest = max(len(e.ids) for e in encodings)
    limit = min(n for n in (length, context, longest) if n is not None)
    if longest > limit:
        at = max(range(len(questions)), key=lambda i: len(encodings[i].ids))
        whose = "the model's context" if limit == context else "the length asked for"
        raise UserError(
            f"a prompt of {longest} tokens ({questions[at].text[:40]!r}...)",
            f"at most {limit}, {whose}",
            "shorten the prompt",
        )


def first_token(text: str, tokenizer: Tokenizer) -> int | None:
    """The token that `text` begins with, as a continuation.

    None where it says nothing: it is white space alone, as of " 1879", which is a space
    and four digits to Gemma, or a part of a character, as of "ローマ", which begins
    with the same two bytes as "パリ" to SmolLM.
    """
    return _first(text, tokenizer)[0]


def unscorable(fact: Fact, tokenizer: Tokenizer) -> str:
    """Why the fact's two answers cannot be told apart; empty where they can.

    Answers are judged by their first token (method §6, trap 13).
    """
    answers = fact.answer, fact.counterfact
    (one, why), (other, why_other) = (_first(a, tokenizer) for a in answers)
    if why or why_other:
        return f"an answer begins with {why or why_other}"
    if one == other:
        return "both answers begin with the same token"
    same = alike(fact.answer) == alike(fact.counterfact)
    return "both answers are the same but for case, accents or spaces" if same else ""


def distinct(facts: Sequence[Fact], tokenizer: Tokenizer) -> list[Fact]:
    """The facts that are not `unscorable`, in order.

    Distractors that cannot be told from another answer of their fact are taken away,
    and so is a rival that cannot be told from the subject.
    """
    kept = []
    for fact in facts:
        if unscorable(fact, tokenizer):
            continue
        answers = (fact.answer, fact.counterfact, *fact.distractors)
        sides = (f" {fact.subject}", f" {fact.rival}")
        kept.append(
            dataclasses.replace(
                fact,
                distractors=tuple(_told_apart(answers, tokenizer)[2:]),
                rival=fact.rival if len(_told_apart(sides, tokenizer)) == 2 else "",
            )
        )
    return kept


def _told_apart(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Those that neither say nor begin with what one before them does."""
    kept: list[str] = []
    said: set[str] = set()
    firsts: set[int | None] = {None}
    for text in texts:
        first = first_token(text, tokenizer)
        if first not in firsts and alike(text) not in said:
            kept.append(text)
            firsts.add(first)
            said.add(alike(text))
    return kept


def _first(text: str, tokenizer: Tokenizer) -> tuple[int | None, str]:
    """The token that `text` begins with; or None, and what it begins with instead."""
    ids, spans = tokenizer.encode(text)
    if len(ids) == 1:
        return None, "no token at all"
    start, stop = spans[1]
    if text[start:stop].strip():
        return ids[1], ""
    if tokenizer.decode(ids[1:2]).strip():  # bytes, of which the next token has more
        return None, "a part of a character, which others share"
    return None, "a token of white space alone, which says nothing"


def _scorable(answer: str, tokenizer: Tokenizer) -> int:
    """Its first token, which must say something."""
    token, instead = _first(answer, tokenizer)
    if token is None:
        raise UserError(
            f"the answer {answer!r}, which begins with {instead}",
            "answers that can be told by their first token",
            "leave the fact out",
        )
    return token


def _options(
    questions: Sequence[Question], firsts: Mapping[str, int]
) -> Int[np.ndarray, "batch option"]:
    """The options' first tokens, which must differ within a row."""
    counts = sorted({len(q.options) for q in questions})
    if len(counts) > 1:
        raise UserError(
            f"questions with {counts[0]} and with {counts[-1]} options in one batch",
            "equally many",
            "ask one format at a time",
        )
    options = np.array([[firsts[o] for o in q.options] for q in questions], np.int32)
    for question, row in zip(questions, options, strict=True):
        if len(set(row.tolist())) != len(row):
            raise UserError(
                f"{question.subject or repr(question.text[-40:])}: two of the answers"
                f" {', '.join(o.strip() for o in question.options)}"
                " begin with the same token",
                "answers that differ in their first token",
                "leave the fact out",
            )
    return options


def _subject(question: Question, encoding: Encoding) -> np.ndarray:
    """[tokens] whether a token overlaps the subject's characters.

    One with an empty span is a byte of the character that begins there; BOS is not.
    """
    if not question.subject:
        return np.zeros(len(encoding.ids), bool)
    inside = [False] + [
        max(stop, start + 1) > question.start and start < question.stop
        for start, stop in encoding.spans[1:]
    ]
    if not any(inside):
        raise UserError(
            f"the subject {question.subject!r} has no token in {question.text[:40]!r}",
            "the subject inside the prompt",
            "correct the fact",
        )
    return np.array(inside)


def shared_prefix(*batches: Prompts) -> int:
    """How many leading tokens all rows of all batches share, subjects left out.

    At least one token of each row always stays behind the prefix.
    """
    first = batches[0].tokens[0]
    end = len(first)
    for batch in batches:
        width = min(end, batch.tokens.shape[1])
        same = (batch.tokens[:, :width] == first[:width]).all(axis=0)
        same &= batch.valid[:, :width].all(axis=0)
        same &= ~batch.subject[:, :width].any(axis=0)
        end = width if same.all() else int(same.argmin())
        end = min(end, int(np.min(batch.last)))
    return end


def batches(total: int, size: int) -> Iterator[tuple[Int[np.ndarray, " size"], int]]:
    """Row numbers, exactly `size` at a time, and how many of them are real.

    The last ones are filled up with the first of their batch, so that a program
    compiled for one batch serves all.
    """
    for start in range(0, total, size):
        index = np.arange(start, min(start + size, total))
        yield np.concatenate([index, np.full(size - len(index), start)]), len(index)


def batched(rows: Prompts, size: int) -> Iterator[tuple[Prompts, int]]:
    """Batches of exactly `size` rows, and how many of each are real."""
    for index, n in batches(len(rows.tokens), size):
        yield rows.rows(index), n


def concatenate(batches: Iterable[Prompts]) -> Prompts:
    """Several batches of the same width as one."""
    return Prompts(*(np.concatenate(fields) for fields in zip(*batches, strict=True)))
