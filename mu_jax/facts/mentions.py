"""Where a text names a subject, and the same text about another one."""

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator

from mu_jax.errors import UserError
from mu_jax.facts.spacing import unspaced
from mu_jax.types import Fact, Question


def mentions(text: str, subject: str) -> list[int]:
    """Where each mention of `subject` begins: those that are no part of a longer word.

    Where a script does not part its words (Chinese, say, or a Korean name and its
    particle) every occurrence is one.
    """
    out = []
    for start in _occurrences(text, subject):
        stop = start + len(subject)
        before, after = text[max(start - 1, 0) : start], text[stop : stop + 1]
        if not _joined(before, subject[0]) and not _joined(after, subject[-1]):
            out.append(start)
    return out


def named(texts: Iterable[str], subjects: Iterable[str]) -> set[str]:
    """Those of the texts that mention one of the subjects.

    In time of the texts' length: a name is looked for where one begins as it does.
    """
    begins: dict[str, list[str]] = {}
    for subject in filter(None, subjects):
        begins.setdefault(subject[:3], []).append(subject)
    widths = {len(begin) for begin in begins}
    found = set()
    for text in texts:
        seen = {text[i : i + n] for i in range(len(text)) for n in widths}
        likely = (name for begin in seen for name in begins.get(begin, ()))
        if any(mentions(text, name) for name in likely):
            found.add(text)
    return found


def find(text: str, subject: str) -> int | None:
    """Where the last mention of `subject` begins; None if there is none.

    Where every occurrence is part of a longer word, the last of these. The last,
    because published paraphrases put other sentences in front.
    """
    if not subject:
        return None
    whole = mentions(text, subject)
    start = whole[-1] if whole else text.rfind(subject)
    return None if start < 0 else start


def place(fact: Fact) -> int | None:
    """Where the subject begins in the fact's own prompt; None if it is not in there.

    Raises:
      UserError: a fact that says where, and something else stands there.
    """
    start = fact.start
    if start is None:
        return find(fact.prompt, fact.subject)
    known = isinstance(start, int) and start >= 0  # a run's file may say anything
    if not known or not fact.prompt.startswith(fact.subject, start):
        raise UserError(
            f"the subject {fact.subject!r} does not stand at character {start} of"
            f" {fact.prompt[:40]!r}",
            "where it begins in the prompt",
            "correct the fact",
        )
    return start


def elsewhere(question: Question) -> bool:
    """Whether the text names the subject once more, beside where it is marked."""
    around = question.text[: question.start], question.text[question.stop :]
    return any(mentions(text, question.subject) for text in around)


def replaced(text: str, subject: str, other: str) -> str:
    """The text with `other` in the place of each mention of `subject`."""
    out, end = "", 0
    for start in mentions(text, subject):
        if start >= end:
            out += text[end:start] + other
            end = start + len(subject)
    return out + text[end:]


def renamed(fact: Fact, subject: str) -> Fact:
    """`fact` asked of another subject in its own prompt; its answers stay.

    Other mentions in the prompt are replaced as well: what is asked of somebody else
    must not name the one it was made from.

    Raises:
      UserError: a prompt without its subject.
    """
    start = place(fact)
    if start is None:
        raise UserError(
            f"the subject {fact.subject!r} is not found in {fact.prompt[:40]!r}",
            "the subject inside the prompt",
            "correct the fact",
        )
    rest = fact.prompt[start + len(fact.subject) :]
    before = replaced(fact.prompt[:start], fact.subject, subject)
    text = before + subject + replaced(rest, fact.subject, subject)
    return dataclasses.replace(fact, subject=subject, prompt=text, start=len(before))


def _occurrences(text: str, subject: str) -> Iterator[int]:
    """Where it stands, as part of a longer word too; nowhere, if it is empty."""
    start = text.find(subject) if subject else -1
    while start >= 0:
        yield start
        start = text.find(subject, start + 1)


def _joined(neighbour: str, edge: str) -> bool:
    """Whether a character beside a subject makes it part of a longer word."""
    word = neighbour.isalnum() or neighbour == "_"
    return word and not any(_loose(character) for character in (neighbour, edge))


def _loose(character: str) -> bool:
    return unspaced(character) or "HANGUL" in unicodedata.name(character, "")
