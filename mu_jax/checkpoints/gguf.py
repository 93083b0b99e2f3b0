"""GGUF files (llama.cpp's format) to parameters in float32 and a tokenizer.

Everything in the file is untrusted: counts, names and shapes are checked against what
the metadata says before anything is used.
"""

import struct
from pathlib import Path

import numpy as np

from mu_jax.errors import UserError
from mu_jax.model.params import shapes
from mu_jax.model.specs import SPECS, Spec, gemma3
from mu_jax.types import Progress, silent

_TOP = {"embedder": "token_embd", "final_norm": "output_norm"}
_STACKED = {
    "attention/query": "attn_q",
    "attention/key": "attn_k",
    "attention/value": "attn_v",
    "attention/output": "attn_output",
    "attention/query_norm": "attn_q_norm",
    "attention/key_norm": "attn_k_norm",
    "mlp/gate": "ffn_gate",
    "mlp/up": "ffn_up",
    "mlp/down": "ffn_down",
    "pre_attention_norm": "attn_norm",
    "post_attention_norm": "post_attention_norm",
    "pre_mlp_norm": "ffn_norm",
    "post_mlp_norm": "post_ffw_norm",
}
"""Our labels and GGUF's. Matrices are stored transposed (output first); norm scales
are stored as they multiply."""


def read(
    path: Path, progress: Progress = silent
) -> tuple[Spec, dict[str, np.ndarray], bytes]:
    """The spec, the float32 parameters (in storage order) and the tokenizer of a file.

    Raises:
      UserError: not a GGUF, truncated, not a Gemma 3, or tensors that do not fit.
    """
    import gguf

    progress("reading the GGUF", 0, 1)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise UserError(
            f"{path} cannot be read as GGUF ({error})",
            "a whole GGUF file",
            "it may be truncated: fetch it again",
        ) from None
    spec = _spec(path, fields)
    tokenizer = _tokenizer(path, fields)
    params = {}
    labels = shapes(spec)
    for i, (label, shape) in enumerate(labels.items()):
        progress(f"dequantising {label}", i, len(labels))
        wanted = tuple(shape.values())
        if label in _TOP:
            params[label] = _tensor(path, tensors, _TOP[label], wanted)
        else:
            stack = np.empty(wanted, np.float32)
            for layer in range(spec.layers):
                name = f"blk.{layer}.{_STACKED[label]}"
                axes = wanted[1:]
                matrix = (
                    label.startswith(("attention/", "mlp/")) and "norm" not in label
                )
                stack[layer] = (
                    _matrix(path, tensors, name, label, axes)
                    if matrix
                    else _tensor(path, tensors, name, axes)
                )
            params[label] = stack
    return spec, params, tokenizer


def _tensor(path, tensors, name: str, shape: tuple[int, ...]) -> np.ndarray:
    import gguf

    tensor = tensors.get(f"{name}.weight")
    if tensor is None:
        raise UserError(
            f"{path} has no tensor {name}.weight",
            "all tensors of a Gemma 3",
            "take another conversion of the model",
        )
    found = tuple(int(n) for n in reversed(tensor.shape))
    if found != shape:
        raise UserError(
            f"{path}: {name}.weight has shape {found}",
            f"{shape}, as the file's own metadata say",
            "take another conversion of the model",
        )
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def _matrix(path, tensors, name: str, label: str, axes: tuple[int, ...]) -> np.ndarray:
    """A matrix stored [outputs, inputs], as [inputs..., outputs...]."""
    n_inputs = int(np.prod(axes[:3])) if label == "attention/output" else axes[0]
    n_outputs = int(np.prod(axes)) // n_inputs
    return _tensor(path, tensors, name, (n_outputs, n_inputs)).T.reshape(axes)


def _spec(path: Path, fields: dict) -> Spec:
    architecture = fields.get("general.architecture")
    if architecture != "gemma3":
        raise UserError(
            f"{path} holds a {architecture!r} model",
            "the architecture gemma3",
            "convert a Gemma 3 text model to GGUF",
        )

    def get(key, default=None):
        value = fields.get(f"gemma3.{key}", default)
        if value is None:
            raise UserError(
                f"{path} lacks the key gemma3.{key}",
                "the metadata of a Gemma 3",
                "take another conversion of the model",
            )
        return value

    def count(key: str) -> int:
        value = get(key)
        if not isinstance(value, int) or value < 1:
            raise UserError(
                f"{path}: gemma3.{key} is {value!r}", "a number from 1", "a Gemma 3"
            )
        return value

    layers, heads = count("block_count"), count("attention.head_count")
    embedding = count("embedding_length")
    if layers > 1024:
        raise UserError(f"{path} claims {layers} layers", "a Gemma 3")
    spec = gemma3(
        str(fields.get("general.name", path.stem)),
        layers=layers,
        embedding=embedding,
        neurons=count("feed_forward_length"),
        heads=heads,
        kv_heads=count("attention.head_count_kv"),
        projection=count("attention.key_length"),
        vocabulary=len(fields.get("tokenizer.ggml.tokens", ())),
        context=count("context_length"),
        window=count("attention.sliding_window"),
        global_scale=float(get("rope.scaling.factor", 1.0)),
        # The 27B scales queries by its embedding, not by its projection.
        query_scale=(embedding // heads) ** -0.5 if layers == 62 else None,
    )
    for row in SPECS.values():
        if all(
            getattr(row, field) == getattr(spec, field)
            for field in ("layers", "embedding", "neurons", "heads", "vocabulary")
        ):
            return row
    return spec


def _tokenizer(path: Path, fields: dict) -> bytes:
    """A SentencePiece model with the vocabulary that the file carries."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    keys = ("tokens", "scores", "token_type")
    columns = [fields.get(f"tokenizer.ggml.{key}") or [] for key in keys]
    if not columns[0] or len({len(c) for c in columns}) != 1:
        raise UserError(
            f"{path} lacks a whole SentencePiece vocabulary",
            "tokens, scores and token types of equal number",
            "take another conversion of the model",
        )
    model = proto.ModelProto()
    for piece, score, kind in zip(*columns, strict=True):
        model.pieces.add(piece=piece, score=float(score), type=int(kind))
    trainer = model.trainer_spec
    trainer.model_type = proto.TrainerSpec.BPE
    trainer.vocab_size = len(columns[0])
    trainer.byte_fallback = True
    for name in ("bos", "eos", "unk", "pad"):
        key = {"unk": "unknown", "pad": "padding"}.get(name, name)
        index = int(fields.get(f"tokenizer.ggml.{key}_token_id", -1))
        if not 0 <= index < len(columns[0]):
            raise UserError(
                f"{path} names no {name} token",
                "bos, eos, unknown and padding ids inside the vocabulary",
                "take another conversion of the model",
            )
        setattr(trainer, f"{name}_id", index)
        setattr(trainer, f"{name}_piece", columns[0][index])
        if name == "unk":  # converters call it a control token; SentencePiece insists
            model.pieces[index].type = proto.ModelProto.SentencePiece.UNKNOWN
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString()
