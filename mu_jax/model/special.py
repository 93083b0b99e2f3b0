"""What a checkpoint's files say of special tokens, read as `transformers` reads them.

`tokenizer_config.json` names them and lists the tokens that were added to a vocabulary;
older checkpoints have `special_tokens_map.json` and `added_tokens.json` for that.
`generation_config.json` says at which tokens a text ends.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard

from tokenizers import AddedToken

from mu_jax import inputs
from mu_jax.errors import UserError
from mu_jax.types import Encoding

PROTO = "tokenizer.model"
JSON = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
NAMES = "special_tokens_map.json"
ADDED = "added_tokens.json"
GENERATION = "generation_config.json"

NO_FILES: Mapping[str, bytes] = MappingProxyType({})
_EOS = "eos_token_id"
_MOST = 1 << 31
"""Ids are below that."""
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclasses.dataclass(frozen=True)
class Special:
    """The special tokens of a checkpoint.

    Attributes:
      named: the text of those that have a part, by it: "bos", "eos", "pad" ...
      others: the texts of those that have none.
      added: by id, tokens that the vocabulary may lack.
      ends: ids at which a text ends, beside the one named "eos".
    """

    named: Mapping[str, str]
    others: tuple[str, ...]
    added: Mapping[int, AddedToken]
    ends: tuple[int, ...]

    @property
    def texts(self) -> set[str]:
        """All that are special by name."""
        return {*self.named.values(), *self.others}


def special(files: Mapping[str, bytes], eos: Any = None) -> Special:
    """What `files`, by name, say.

    Args:
      eos: the `eos_token_id` of the model's config.json: an id, a list of ids or None.

    Raises:
      UserError: one that is not a JSON object, or an id or a text that is none.
    """
    settings = _parsed(files, SETTINGS)
    generation = _parsed(files, GENERATION)
    if "added_tokens_decoder" in settings:
        listed = _entries(SETTINGS, settings["added_tokens_decoder"])
    else:
        settings |= _parsed(files, NAMES)
        added = _parsed(files, ADDED).items()
        listed = [(index, {"content": text}) for text, index in added]
    named = {
        key.removesuffix("_token"): text
        for key, value in settings.items()
        if key.endswith("_token") and (text := _text(value)) is not None
    }
    others = tuple(_others(settings))
    specials = {*named.values(), *others}
    ends = (*_ends("config.json", eos), *_ends(GENERATION, generation.get(_EOS)))
    return Special(named, others, dict(_added(listed, specials)), ends)


def parsed(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file of that name; raises UserError if it is none."""
    try:
        found = inputs.parsed(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"{name} is not a JSON object", "a whole file", "fetch it again"
        )
    return found


def sound(text: str) -> str:
    """`text`; raises UserError if it holds half of a character, as JSON can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"a text with half of a character ({text[error.start : error.end]!r})",
            "text that UTF-8 can hold",
            "mend the file that it comes from",
        ) from None
    return text


class Rows(Protocol):
    """A tokenizer that knows how many rows its model's embedding table has, or None."""

    bos: int
    markers: Mapping[int, str]
    rows: int | None


def begun(tokenizer: Rows, found: Encoding, text: str) -> Encoding:
    """The encoding behind one BOS, which the text itself must not spell out.

    A token without a row would be read as the last one that has one, unsaid.
    """
    if tokenizer.bos in found.ids:
        raise UserError(
            f"a prompt that spells out the BOS token: {text[:40]!r}",
            "plain text, BOS is added by the tokenizer",
            f"remove {tokenizer.markers.get(tokenizer.bos, '<bos>')} from the prompt",
        )
    if tokenizer.rows is not None and max(found.ids, default=0) >= tokenizer.rows:
        index = max(found.ids)
        start, stop = found.spans[found.ids.index(index)]
        raise UserError(
            f"a text with {text[start:stop][:40]!r}, the token {index}",
            f"one of the {tokenizer.rows} tokens that the model has embeddings of",
            "write it without that token",
        )
    return Encoding([tokenizer.bos, *found.ids], [(0, 0), *found.spans])


def without_bos() -> UserError:
    """What to raise where no sequence can begin."""
    return UserError(
        "a tokenizer without a BOS token",
        "one whose every sequence can begin with a BOS, as Gemma's and Llama's do",
        "take the tokenizer that came with the checkpoint",
    )


def dummy_space(name: str) -> UserError:
    """What to raise where " a" behind a text has other tokens than at its end."""
    return UserError(
        f"a {name} that puts a space in front of every text, as Llama 2's does",
        "one that takes texts as they are: what follows a prompt begins as it is",
        "take a Gemma 1, 2 or 3, or a Llama 3",
    )


def contradiction(name: str, text: str, index: int, found: int | None) -> UserError:
    """What to raise where the file `name` and the vocabulary give other ids."""
    return UserError(
        f"{SETTINGS} or {ADDED} has {text[:60]!r} as token {index}",
        f"{found}, as {name} has it" if found is not None else f"one that {name} has",
        "fetch the checkpoint's tokenizer files again",
    )


def is_id(index: Any) -> TypeGuard[int]:
    """Whether this can be the id of a token, in a vocabulary large enough."""
    return type(index) is int and 0 <= index < _MOST


def _parsed(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parsed(name, files[name]) if name in files else {}


def _text(value: Any) -> str | None:
    """The text of a token that is given as such, or with its flags."""
    text = value.get("content") if isinstance(value, dict) else value
    return sound(text) if isinstance(text, str) and text else None


def _others(settings: Mapping[str, Any]) -> Iterator[str]:
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = settings.get(key) or ()
        values = listed.values() if isinstance(listed, dict) else listed
        if isinstance(values, str) or not hasattr(values, "__iter__"):
            continue
        yield from (text for value in values if (text := _text(value)) is not None)


def _entries(name: str, listed: Any) -> list[tuple[Any, Any]]:
    """(id, token) of a mapping from ids as text."""
    if not isinstance(listed, dict):
        raise UserError(f"{name}: added_tokens_decoder is no object", "id to token")
    number = lambda i: int(i) if i.isdecimal() and len(i) < 12 else i
    return [(number(i), token) for i, token in listed.items()]


def _added(
    listed: list[tuple[Any, Any]], specials: set[str]
) -> Iterator[tuple[int, AddedToken]]:
    """In order of their ids."""
    for index, token in listed:
        described = isinstance(token, dict) and _text(token) is not None
        if not (is_id(index) and described):
            raise UserError(
                f"{SETTINGS} or {ADDED} has {str(token)[:60]!r} as token {index!r:.60}",
                "an object with the token's text as content, and its id",
                "fetch the checkpoint's tokenizer files again",
            )
    for index, token in sorted(listed, key=lambda pair: pair[0]):
        text = _text(token) or ""
        flags = {"special": text in specials, "normalized": text not in specials}
        flags |= {k: token[k] for k in _FLAGS if isinstance(token.get(k), bool)}
        yield index, AddedToken(text, **flags)


def _ends(name: str, value: Any) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(is_id(index) or index == -1 for index in listed):
        raise UserError(
            f"{name}: {_EOS} is {str(value)[:60]!r}",
            "an id or a list of ids",
            "fetch the checkpoint's own file",
        )
    return tuple(index for index in listed if index >= 0)
