"""A small vocabulary of Gemma's kind, as each of its files has it."""

import json
import string

from sentencepiece import sentencepiece_model_pb2 as library
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

_KIND = library.ModelProto.SentencePiece
CONTROL = ("<pad>", "<eos>", "<bos>")
TURNS = ("<start_of_turn>", "<end_of_turn>")
WORDS = ("▁", *string.ascii_letters, *":.,?!<>_", "▁p")
PIECES = [
    *((text, _KIND.CONTROL) for text in CONTROL),
    ("<unk>", _KIND.UNKNOWN),
    *((text, _KIND.CONTROL) for text in TURNS),
    *((text, _KIND.USER_DEFINED) for text in ("\n", "\n\n", "<b>")),
    *((f"<0x{i:02X}>", _KIND.BYTE) for i in range(256)),
    *((text, _KIND.NORMAL) for text in WORDS),
]
ID = {text: i for i, (text, _) in enumerate(PIECES)}


def proto(*, dummy: bool = False) -> bytes:
    """A `tokenizer.model`; `dummy`: with a space in front of every text."""
    model = library.ModelProto()
    for i, (text, kind) in enumerate(PIECES):
        model.pieces.add(piece=text, score=-float(i), type=kind)
    trainer = model.trainer_spec
    trainer.model_type = library.TrainerSpec.BPE
    trainer.byte_fallback, trainer.vocab_size = True, len(PIECES)
    for i, name in enumerate(("pad", "eos", "bos", "unk")):
        setattr(trainer, f"{name}_id", i)
        setattr(trainer, f"{name}_piece", PIECES[i][0])
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = dummy, False
    return model.SerializeToString()


def as_json(*added: str, **changes) -> bytes:
    """The same as a `tokenizer.json`, with tokens added; `changes` are to its parts."""
    bpe = models.BPE(ID, [("▁", "p")], byte_fallback=True, unk_token="<unk>")
    made = Tokenizer(bpe)
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.add_tokens(
        [
            AddedToken(text, normalized=False, special=kind != _KIND.USER_DEFINED)
            for text, kind in PIECES
            if kind in (_KIND.CONTROL, _KIND.UNKNOWN, _KIND.USER_DEFINED)
        ]
    )
    made.add_special_tokens(list(added))
    return json.dumps({**json.loads(made.to_str()), **changes}).encode()


def settings(**changes) -> bytes:
    """A `tokenizer_config.json`."""
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return json.dumps({**named, **changes}).encode()
