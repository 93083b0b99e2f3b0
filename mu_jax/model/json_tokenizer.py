"""Hugging Face's own format: Llama 3's tokenizer, and Gemma's for `transformers`."""

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken

from mu_jax.errors import UserError
from mu_jax.model.special import (
    JSON,
    NO_FILES,
    Special,
    begun,
    contradiction,
    dummy_space,
    is_id,
    sound,
    special,
    without_bos,
)
from mu_jax.types import Encoding


class JsonTokenizer:
    """The tokenizer in the bytes of a `tokenizer.json`.

    What the vocabulary has no token for vanishes, as it does there.

    Args:
      beside: further files of the checkpoint's tokenizer, kept as they are for export.
      bos, pad: their ids, where the files name none.
      eos: the `eos_token_id` of the model's config.json.
      rows: of the model's embedding table.

    Raises:
      UserError: a file that cannot be read, no BOS, a space put in front of a text, or
        files that contradict one another.
    """

    def __init__(
        self,
        data: bytes,
        beside: Mapping[str, bytes] = NO_FILES,
        *,
        bos: Any = None,
        pad: Any = None,
        eos: Any = None,
        rows: int | None = None,
    ):
        self._data, self._beside, self.rows = data, dict(beside), rows
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"a {JSON} that cannot be read ({error})",
                "the tokenizer that came with the checkpoint",
                "fetch it again",
            ) from None
        if _puts_a_space(self._tokenizer):
            raise dummy_space(JSON)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # It would put BOS there or not, and may cut spaces off the spans.
        self._tokenizer.post_processor = None
        said = special(self._beside, eos)
        _add(self._tokenizer, said)
        added = self._tokenizer.get_added_tokens_decoder()
        self.markers: Mapping[int, str] = {
            i: t.content for i, t in added.items() if t.special
        }
        first = self._id(said, "bos", bos)
        if first is None:
            raise without_bos()
        self.bos: int = first
        ends = (self._id(said, "eos"), *said.ends)
        self.ends = tuple(dict.fromkeys(i for i in ends if i is not None))
        fills = (self._id(said, "pad", pad), *self.ends)
        self.pad: int = next((i for i in fills if i is not None), 0)

    def _id(self, said: Special, name: str, otherwise: Any = None) -> int | None:
        """The id of the special token `name`, if there is one in the vocabulary."""
        if name in said.named:
            return self._tokenizer.token_to_id(said.named[name])
        if not is_id(otherwise):
            return None
        return None if self._tokenizer.id_to_token(otherwise) is None else otherwise

    def encode(self, text: str) -> Encoding:
        """Ids of `text` behind one BOS, and where in `text` each comes from."""
        found = self._tokenizer.encode(sound(text), add_special_tokens=False)
        spans = list(found.offsets)
        for i in reversed(range(len(spans) - 1)):
            # The library gives every token all characters that it has a byte of.
            start, stop = spans[i]
            spans[i] = (start, max(start, min(stop, spans[i + 1][0])))
        return begun(self, Encoding(found.ids, spans), text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens such as BOS and padding vanish."""
        return self._tokenizer.decode([int(i) for i in ids])

    def files(self) -> dict[str, bytes]:
        """Name to content of the files that `from_files` makes this tokenizer from."""
        return {**self._beside, JSON: self._data}


def _puts_a_space(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether a text gets more than it has, before it is cut into words or then."""
    text = "a"
    if tokenizer.normalizer:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer:
        parts = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        text = "".join(part for part, _ in parts)
    return len(text) > 1


def _add(tokenizer: tokenizers.Tokenizer, said: Special) -> None:
    """Makes tokens of what the files beside name, as `transformers` does."""
    tokenizer.add_tokens(list(said.added.values()))
    for index, token in said.added.items():
        found = tokenizer.token_to_id(token.content)
        if found != index:
            raise contradiction(JSON, token.content, index, found)
    known = {t.content for t in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False, special=True)
            for text in sorted(said.texts - known)
            if tokenizer.token_to_id(text) is not None
        ]
    )
