"""Gemma's tokenizer: SentencePiece, in which a text may spell out control tokens."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken

from mu_jax.errors import UserError
from mu_jax.model.special import (
    NO_FILES,
    PROTO,
    Special,
    begun,
    contradiction,
    dummy_space,
    sound,
    special,
    without_bos,
)
from mu_jax.types import Encoding


class SentencePiece:
    """The tokenizer in the bytes of a SentencePiece model.

    SentencePiece itself tears control pieces up, as no text should hold them. Here they
    are tokens wherever they stand, as in a `tokenizer.json`, and so are those that the
    files beside it add.

    Args:
      beside: further files of the checkpoint's tokenizer, kept as they are for export.
      eos: the `eos_token_id` of the model's config.json.
      rows: of the model's embedding table.

    Raises:
      UserError: not a SentencePiece model, one without BOS or that puts a space in
        front of a text, or files that contradict it.
    """

    def __init__(
        self,
        proto: bytes,
        beside: Mapping[str, bytes] = NO_FILES,
        *,
        eos: Any = None,
        rows: int | None = None,
    ):
        self.proto, self._beside, self.rows = proto, dict(beside), rows
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(proto)
        except RuntimeError:
            raise UserError(
                f"a {PROTO} that is not a SentencePiece model",
                "the tokenizer that came with the checkpoint",
                "fetch it again",
            ) from None
        said = special(self._beside, eos)
        atoms, self._ids = _atoms(proto, said)
        self._marked = tokenizers.Tokenizer(tokenizers.models.BPE())
        self._marked.add_tokens(atoms)
        self.markers: Mapping[int, str] = {
            self._ids[t.content]: t.content for t in atoms if t.special
        }
        self._size = self._processor.get_piece_size()
        self._added = {i: text for text, i in self._ids.items() if i >= self._size}
        bos = self._id(said, "bos")
        if bos is None:
            raise without_bos()
        self.bos = bos
        own = self._id(said, "eos")
        self.ends = tuple(dict.fromkeys(i for i in (own, *said.ends) if i is not None))
        self.pad = self._id(said, "pad") or 0

    def _id(self, said: Special, name: str) -> int | None:
        """The id of the special token `name`, if there is one in the vocabulary."""
        if name in said.named:
            return self._ids.get(said.named[name])
        index = getattr(self._processor, f"{name}_id")()
        return index if index >= 0 else None

    def encode(self, text: str) -> Encoding:
        """Ids of `text` behind one BOS, and where in `text` each comes from."""
        ids, spans, done = [], [], 0
        for index, start, stop in self._atoms_of(text):
            if done < start:
                part = text[done:start]
                pieces = self._processor.encode(part, out_type="immutable_proto").pieces
                ids += [p.id for p in pieces]
                spans += [(done + p.begin, done + p.end) for p in pieces]
            if index is not None:
                ids.append(index)
                spans.append((start, stop))
            done = stop
        return begun(self, Encoding(ids, spans), text)

    def _atoms_of(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """(id, start, stop) of what is a token by itself; None at the text's end."""
        found = self._marked.encode(sound(text), add_special_tokens=False)
        for piece, (start, stop) in zip(found.tokens, found.offsets, strict=True):
            yield self._ids[piece], start, stop
        yield None, len(text), len(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; control tokens such as BOS and padding vanish.

        So do ids beyond the vocabulary, which a model may have rows for.
        """
        said = (int(i) for i in ids if int(i) not in self.markers)
        known = (i for i in said if 0 <= i < self._size or i in self._added)
        return "".join(
            "".join(self._added[i] for i in run)
            if added
            else self._processor.decode(list(run))
            for added, run in itertools.groupby(known, self._added.__contains__)
        )

    def files(self) -> dict[str, bytes]:
        """Name to content of the files that `from_files` makes this tokenizer from."""
        return {**self._beside, PROTO: self.proto}


def _atoms(proto: bytes, said: Special) -> tuple[list[AddedToken], dict[str, int]]:
    """What is a token by itself wherever a text has it, and the id of each."""
    from sentencepiece import sentencepiece_model_pb2 as library

    model, kind = library.ModelProto.FromString(proto), library.ModelProto.SentencePiece
    if model.normalizer_spec.add_dummy_prefix:
        raise dummy_space(PROTO)
    ids = {piece.piece: i for i, piece in enumerate(model.pieces)}
    atoms = {
        piece.piece: AddedToken(
            piece.piece, normalized=False, special=piece.type != kind.USER_DEFINED
        )
        for piece in model.pieces
        if piece.type in (kind.CONTROL, kind.UNKNOWN, kind.USER_DEFINED)
    }
    for text in said.texts & ids.keys():
        atoms[text] = AddedToken(text, normalized=False, special=True)
    for index, token in said.added.items():
        if ids.setdefault(token.content, len(ids)) != index:
            raise contradiction(PROTO, token.content, index, ids[token.content])
        atoms[token.content] = token
    return list(atoms.values()), {text: ids[text] for text in atoms}
