"""Text to token ids and back, with the character span of every token.

Two kinds: SentencePiece (Gemma's `tokenizer.model`) and Hugging Face's `tokenizer.json`
(Llama 3's). Both put exactly one BOS first, whatever their files say, and tell spans
alike: a character that spans several tokens gives the last of them its span and the
others an empty one where it begins; BOS has the empty span (0, 0). Instances compare by
identity.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sentencepiece
import tokenizers

from mu_jax.errors import UserError
from mu_jax.types import Encoding, Tokenizer

PROTO = "tokenizer.model"
JSON = "tokenizer.json"
SETTINGS = "tokenizer_config.json"

_NONE: Mapping[str, bytes] = MappingProxyType({})


class SentencePiece:
    """Gemma's tokenizer, from the bytes of a SentencePiece model.

    Args:
      beside: further files of the checkpoint's tokenizer, kept as they are for export.

    Raises:
      UserError: not a SentencePiece model, or one without BOS.
    """

    def __init__(self, proto: bytes, beside: Mapping[str, bytes] = _NONE):
        self.proto, self._beside = proto, dict(beside)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(proto)
        except RuntimeError:
            raise UserError(
                f"a {PROTO} that is not a SentencePiece model",
                "the tokenizer that came with the checkpoint",
                "fetch it again",
            ) from None
        self.bos, self.pad = self._processor.bos_id(), self._processor.pad_id()
        if self.bos < 0:
            raise _without_bos()
        self.pad = max(self.pad, 0)
        eos = self._processor.eos_id()
        self.eos = eos if eos >= 0 else None

    def encode(self, text: str) -> Encoding:
        """Ids of `text` behind one BOS, and where in `text` each comes from."""
        proto = self._processor.encode(text, out_type="immutable_proto")
        spans = [(p.begin, p.end) for p in proto.pieces]
        return _begun(self.bos, [p.id for p in proto.pieces], spans, text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; control tokens such as BOS and padding vanish.

        So do ids beyond the vocabulary, which a model may have rows for.
        """
        size = self._processor.get_piece_size()
        return self._processor.decode([int(i) for i in ids if 0 <= i < size])

    def first_token(self, text: str) -> int:
        """The id of the token that `text` begins with, as a continuation."""
        return self.encode(text).ids[1]

    def files(self) -> dict[str, bytes]:
        """Name to content of the files that `from_files` makes this tokenizer from."""
        return {**self._beside, PROTO: self.proto}


class JsonTokenizer:
    """A tokenizer in Hugging Face's own format, from the bytes of a `tokenizer.json`.

    What the vocabulary has no token for vanishes, as it does there.

    Args:
      bos, pad: their ids; None: as the `tokenizer_config.json` in `beside` says.
      beside: further files of the checkpoint's tokenizer, kept as they are for export.

    Raises:
      UserError: a file that cannot be read, or no BOS.
    """

    def __init__(
        self,
        data: bytes,
        beside: Mapping[str, bytes] = _NONE,
        *,
        bos: int | None = None,
        pad: int | None = None,
    ):
        self._data, self._beside = data, dict(beside)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"a {JSON} that cannot be read ({error})",
                "the tokenizer that came with the checkpoint",
                "fetch it again",
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # It would put BOS there or not, and may cut spaces off the spans.
        self._tokenizer.post_processor = None
        settings = parsed(SETTINGS, self._beside.get(SETTINGS, b"{}"))
        first = self._id(settings, "bos", bos)
        if first is None:
            raise _without_bos()
        self.bos: int = first
        self.eos = self._id(settings, "eos")
        fills = (self._id(settings, "pad", pad), self.eos)
        self.pad: int = next((i for i in fills if i is not None), 0)

    def _id(
        self, settings: Mapping[str, Any], name: str, otherwise: int | None = None
    ) -> int | None:
        """The id of the special token `name`, if there is one in the vocabulary."""
        token = settings.get(f"{name}_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return self._tokenizer.token_to_id(token)
        if not isinstance(otherwise, int) or otherwise < 0:
            return None
        return None if self._tokenizer.id_to_token(otherwise) is None else otherwise

    def encode(self, text: str) -> Encoding:
        """Ids of `text` behind one BOS, and where in `text` each comes from."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        spans = list(found.offsets)
        for i in reversed(range(len(spans) - 1)):
            # The library gives every token all characters that it has a byte of.
            start, stop = spans[i]
            spans[i] = (start, max(start, min(stop, spans[i + 1][0])))
        return _begun(self.bos, found.ids, spans, text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens such as BOS and padding vanish."""
        return self._tokenizer.decode([int(i) for i in ids])

    def first_token(self, text: str) -> int:
        """The id of the token that `text` begins with, as a continuation."""
        return self.encode(text).ids[1]

    def files(self) -> dict[str, bytes]:
        """Name to content of the files that `from_files` makes this tokenizer from."""
        return {**self._beside, JSON: self._data}


def from_files(
    files: Mapping[str, bytes], *, bos: int | None = None, pad: int | None = None
) -> Tokenizer:
    """The tokenizer that these files describe: SentencePiece where there is one.

    Args:
      bos, pad: ids for a `tokenizer.json` whose `tokenizer_config.json` names none.

    Raises:
      UserError: neither kind is there, one cannot be read, or it has no BOS.
    """
    if PROTO in files:
        beside = {name: data for name, data in files.items() if name != PROTO}
        return SentencePiece(files[PROTO], beside)
    if JSON in files:
        beside = {name: data for name, data in files.items() if name != JSON}
        return JsonTokenizer(files[JSON], beside, bos=bos, pad=pad)
    raise UserError(
        "a checkpoint without a tokenizer",
        f"{PROTO} (Gemma) or {JSON} beside the weights",
        "fetch the checkpoint's tokenizer files too",
    )


def parsed(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file of that name; raises UserError if it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"{name} is not a JSON object", "a whole file", "fetch it again"
        )
    return found


def _begun(
    bos: int, ids: list[int], spans: list[tuple[int, int]], text: str
) -> Encoding:
    """The encoding behind one BOS, which the text itself must not spell out."""
    if bos in ids:
        raise UserError(
            f"a prompt that spells out the BOS token: {text[:40]!r}",
            "plain text, BOS is added by the tokenizer",
            "remove <bos> from the prompt",
        )
    return Encoding([bos, *ids], [(0, 0), *spans])


def _without_bos() -> UserError:
    return UserError(
        "a tokenizer without a BOS token",
        "one whose every sequence can begin with a BOS, as Gemma's and Llama's do",
        "take the tokenizer that came with the checkpoint",
    )
