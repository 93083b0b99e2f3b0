"""Text to token ids and back, with the character span of every token."""

from collections.abc import Sequence

import sentencepiece

from mu_jax.errors import UserError
from mu_jax.types import Encoding


class SentencePiece:
    """Gemma's tokenizer, from the bytes of a SentencePiece model.

    `encode` always puts exactly one BOS first. Instances compare by identity.
    """

    def __init__(self, proto: bytes):
        self.proto = proto
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        self.bos, self.pad = self._processor.bos_id(), self._processor.pad_id()
        if self.bos < 0:
            raise UserError(
                "a tokenizer without a BOS token",
                "a Gemma tokenizer, whose every sequence begins with <bos>",
                "take the tokenizer that came with the checkpoint",
            )
        self.pad = max(self.pad, 0)

    def encode(self, text: str) -> Encoding:
        """Ids of `text` behind one BOS, and where in `text` each comes from.

        A character that spans several byte tokens gives the last of them its span and
        the others an empty one where it begins. BOS has the empty span (0, 0).
        """
        proto = self._processor.encode(text, out_type="immutable_proto")
        pieces = [(p.id, p.begin, p.end) for p in proto.pieces]
        ids = [self.bos, *(i for i, _, _ in pieces)]
        if ids.count(self.bos) != 1:
            raise UserError(
                f"a prompt that spells out the BOS token: {text[:40]!r}",
                "plain text, BOS is added by the tokenizer",
                "remove <bos> from the prompt",
            )
        return Encoding(ids, [(0, 0), *((start, stop) for _, start, stop in pieces)])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; control tokens such as BOS and padding vanish."""
        return self._processor.decode([int(i) for i in ids])

    def first_token(self, text: str) -> int:
        """The id of the token that `text` begins with, as a continuation."""
        return self.encode(text).ids[1]
