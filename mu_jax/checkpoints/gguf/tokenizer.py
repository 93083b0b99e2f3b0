"""The vocabulary that a GGUF file carries, as the tokenizer files of other formats.

`tokenizer.ggml.model` is `llama` for SentencePiece (Gemma) and `gpt2` for byte-level
pairs (Llama 3), whose way to cut text before merging goes by the name in
`tokenizer.ggml.pre`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mu_jax.errors import UserError
from mu_jax.model.special import (
    GENERATION,
    JSON,
    PROTO,
    SETTINGS,
    dummy_space,
    is_id,
)

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_TYPES = range(1, 7)
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tokens": (lambda x: isinstance(x, str), "texts"),
    "scores": (lambda x: isinstance(x, int | float) and abs(x) < 1e30, "numbers"),
    "token_type": (lambda x: type(x) is int and x in _TYPES, "a type from 1 to 6"),
    "merges": (lambda x: isinstance(x, str) and x.count(" ") == 1, "two texts each"),
}
"""What an entry of each list has to be."""
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE = {
    "gpt-2": "gpt-2",
    "smollm": "smollm",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
}
"""Names of the cutting that are known; others are refused, as guessing gives other ids
than the model was trained on."""


def files(path: Path, fields: Mapping[str, Any]) -> dict[str, bytes]:
    """Name to content, as `tokenizer.from_files` takes them.

    Raises:
      UserError: an incomplete vocabulary, or one of another kind.
    """
    kind = fields.get("tokenizer.ggml.model", "llama")
    if fields.get("tokenizer.ggml.add_space_prefix"):
        raise dummy_space(f"vocabulary in {path}")
    ends = {GENERATION: json.dumps({"eos_token_id": _ends(fields)}).encode()}
    if kind == "gpt2":
        return _byte_pairs(path, fields) | ends
    if kind == "llama" and fields.get("general.architecture") != "llama":
        return _sentencepiece(path, fields) | ends
    raise UserError(
        f"{path} has a vocabulary of the kind {str(kind)[:60]!r}",
        "llama (SentencePiece) in a Gemma or gpt2 (byte pairs) in a Llama 3",
        "take another model",
    )


def _columns(path: Path, fields: Mapping[str, Any], *keys: str) -> list[list]:
    """Lists of one entry a token, each of its kind."""
    columns = [fields.get(f"tokenizer.ggml.{key}") or [] for key in keys]
    lists = all(isinstance(column, list) for column in columns)
    if not lists or not columns[0] or len({len(c) for c in columns}) != 1:
        raise UserError(
            f"{path} lacks a whole vocabulary",
            f"{', '.join(keys)} of equal number",
            "take another conversion of the model",
        )
    for key, column in zip(keys, columns, strict=True):
        _check(path, key, column)
    return columns


def _check(path: Path, key: str, column: list) -> None:
    """Raises UserError unless every entry of a list is of the list's kind."""
    right, kind = _KINDS[key]
    wrong = [x for x in column if not right(x)]
    if wrong:
        raise UserError(
            f"{path}: tokenizer.ggml.{key} holds {repr(wrong[0])[:60]}",
            kind,
            "take another conversion of the model",
        )


def _special(path: Path, fields: Mapping[str, Any], name: str, size: int) -> int:
    """The id of a special token that has to be there."""
    key = {"unk": "unknown", "pad": "padding"}.get(name, name)
    index = fields.get(f"tokenizer.ggml.{key}_token_id", -1)
    if type(index) is not int or not 0 <= index < size:
        raise UserError(
            f"{path} names no {name} token",
            f"the key tokenizer.ggml.{key}_token_id, inside the vocabulary",
            "take another conversion of the model",
        )
    return index


def _ends(fields: Mapping[str, Any]) -> list[int]:
    """Ids at which a text, a turn of a chat or a message to a tool ends."""
    found = [fields.get(f"tokenizer.ggml.{n}_token_id") for n in ("eos", "eot", "eom")]
    return list(dict.fromkeys(i for i in found if is_id(i)))


def _sentencepiece(path: Path, fields: Mapping[str, Any]) -> dict[str, bytes]:
    """A SentencePiece model with the vocabulary that the file carries, and settings."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    tokens, *rest = _columns(path, fields, "tokens", "scores", "token_type")
    model = proto.ModelProto()
    for piece, score, kind in zip(tokens, *rest, strict=True):
        if kind == _USER_DEFINED:  # matched after spaces are escaped: runs of them
            piece = piece.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}")
        model.pieces.add(piece=piece, score=float(score), type=int(kind))
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.BPE
    trainer.vocab_size = len(tokens)
    trainer.byte_fallback = True
    for name in ("bos", "eos", "unk", "pad"):
        index = _special(path, fields, name, len(tokens))
        setattr(trainer, f"{name}_id", index)
        setattr(trainer, f"{name}_piece", tokens[index])
        if name == "unk":  # converters call it a control token; SentencePiece insists
            model.pieces[index].type = proto.ModelProto.SentencePiece.UNKNOWN
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    settings = _settings(fields, tokens, "GemmaTokenizer") | {"add_bos_token": True}
    described = json.dumps(settings).encode()
    return {PROTO: model.SerializeToString(), SETTINGS: described}


def _byte_pairs(path: Path, fields: Mapping[str, Any]) -> dict[str, bytes]:
    """A `tokenizer.json` and its settings; BOS is added where the model's own did."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    tokens, kinds = _columns(path, fields, "tokens", "token_type")
    merges = fields.get("tokenizer.ggml.merges") or []
    given = fields.get("tokenizer.ggml.pre")
    cut = _PRE.get(given) if isinstance(given, str) else None
    if cut is None:
        raise UserError(
            f"{path} cuts text by the rule {str(given)[:60]!r}",
            f"tokenizer.ggml.pre to be one of {', '.join(_PRE)}",
            "take another conversion of the model",
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    _check(path, "merges", merges if isinstance(merges, list) else [merges])
    pairs = [tuple(m.split(" ")) for m in merges]
    try:
        if len(vocabulary) != len(tokens) or not pairs:
            raise ValueError("a token twice, or no merges")
        model = models.BPE(vocabulary, pairs, ignore_merges=cut == "llama3")
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{path} has a vocabulary that does not fit together ({error})",
            "tokens and merges of byte pairs",
            "take another conversion of the model",
        ) from None
    made = Tokenizer(model)
    made.pre_tokenizer = _cutting(cut)
    made.decoder = decoders.ByteLevel()
    for of, special in (((_UNKNOWN, _CONTROL), True), ((_USER_DEFINED,), False)):
        chosen = [t for t, k in zip(tokens, kinds, strict=True) if k in of]
        added = [AddedToken(t, special=special, normalized=False) for t in chosen]
        (made.add_special_tokens if special else made.add_tokens)(added)
    bos = _special(path, fields, "bos", len(tokens))
    begins = bool(fields.get("tokenizer.ggml.add_bos_token", cut == "llama3"))
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    settings = _settings(fields, tokens, "PreTrainedTokenizerFast")
    settings["add_bos_token"] = begins
    return {JSON: made.to_str().encode(), SETTINGS: json.dumps(settings).encode()}


def _cutting(name: str):
    """What cuts text into words before bytes are merged."""
    from tokenizers import Regex, pre_tokenizers

    if name == "llama3":
        words = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([words, letters])
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return plain
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, plain])


def _settings(
    fields: Mapping[str, Any], tokens: list[str], kind: str
) -> dict[str, Any]:
    """The `tokenizer_config.json`: special tokens by their text."""
    settings: dict[str, Any] = {
        "tokenizer_class": kind,
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for name, key in names.items():
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if type(index) is int and 0 <= index < len(tokens):
            settings[f"{name}_token"] = tokens[index]
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings
