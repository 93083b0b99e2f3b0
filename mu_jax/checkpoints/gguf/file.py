"""GGUF files (llama.cpp's format) as a source: Gemma 1, 2, 3 and Llama 3.

    ours                         GGUF
    embedder                     token_embd
    unembedder                   output                         (untied only)
    final_norm                   output_norm

and once in each `blk.{i}.` there what `_STACKED` lists. Matrices are stored transposed,
outputs first, and quantised along a row; norm scales as they multiply, Gemma's too.
Llama's query and key rows have the two halves of a head interleaved.

Everything in the file is untrusted: counts, names and shapes are checked against what
the metadata says before anything is used. Tensors are dequantised when they are asked
for, and only the rows of the part. A split file is read as one (`parts`).
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mu_jax.checkpoints import matrix, pointer
from mu_jax.checkpoints.gguf import head
from mu_jax.checkpoints.gguf import spec as gguf_spec
from mu_jax.checkpoints.gguf import tokenizer as gguf_tokenizer
from mu_jax.checkpoints.gguf.parts import joined, parts
from mu_jax.checkpoints.huggingface.config import is_llama
from mu_jax.checkpoints.matrix import Index
from mu_jax.errors import UserError
from mu_jax.model import tokenizer
from mu_jax.model.params import shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, Tokenizer, silent

_TOP = {
    "embedder": "token_embd",
    "unembedder": "output",
    "final_norm": "output_norm",
}
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
_ROTATED = ("attention/query", "attention/key")


@dataclasses.dataclass(frozen=True, eq=False)
class File:
    """A checked GGUF file; `tensors` are as its reader maps them, not yet read."""

    path: Path
    spec: Spec
    digest: str
    words: Mapping[str, bytes]
    tensors: Mapping[str, Any]

    def tokenizer(self) -> Tokenizer:
        """The vocabulary that the file carries."""
        return tokenizer.from_files(self.words, rows=self.spec.vocabulary)

    def part(self, label: str, layer: int | None, index: Index) -> np.ndarray:
        """See `Source`; always float32."""
        axes = [n for axis, n in shapes(self.spec)[label].items() if axis != "layer"]
        tensor = self.tensors[_name(label, layer)]
        if not matrix.is_matrix(label):
            return _rows(tensor, index[0])[(slice(None), *index[1:])]
        block = lambda rows, columns: _rows(tensor, rows)[:, columns]
        if label not in _ROTATED or not is_llama(self.spec):
            return matrix.read(block, label, axes, index)
        heads = (*index[:-1], slice(None))
        value = matrix.read(block, label, axes, heads)
        at = np.arange(axes[-1])
        half = axes[-1] // 2
        return value[..., (2 * (at % half) + at // half)[index[-1]]]


def open_file(path: Path, digest: str = "", progress: Progress = silent) -> File:
    """Checks a file, or all parts of a split one; dequantises none of it.

    Args:
      path: the file, or any of its parts.
      digest: its sha256, where that is known already.

    Raises:
      UserError: not a GGUF, truncated, another architecture, or tensors that do not
        fit; what is wrong is named.
    """
    digest = digest or sha256(path)
    progress("reading the GGUF", 0, 1)
    files = parts(path)
    fields, tensors = joined(files, [_contents(file) for file in files])
    tensors = dict(tensors)
    factors = tensors.pop("rope_freqs.weight", None)
    spec = gguf_spec.spec(
        path,
        fields,
        tied="output.weight" not in tensors,
        rope_factors=None if factors is None else _factors(path, factors),
    )
    _check(path, tensors, spec)
    words = gguf_tokenizer.files(path, fields)
    tokenizer.from_files(words)
    return File(path, spec, digest, words, tensors)


def sha256(path: Path) -> str:
    """The hex digest of a file; of a split one, that of its parts' digests.

    Raises:
      UserError: there is no such file, or a part is missing.
    """
    digests = []
    for part in parts(path):
        pointer.check(part)
        with part.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata and the tensors of one file, by name."""
    import gguf

    pointer.check(path)
    head.check(path)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        return fields, {tensor.name: tensor for tensor in reader.tensors}
    except MemoryError:
        raise
    except Exception as error:  # whatever its reader makes of strange bytes
        raise UserError(
            f"{path} cannot be read as GGUF ({error})",
            "a whole GGUF file",
            "it may be truncated: fetch it again",
        ) from None


def _name(label: str, layer: int | None) -> str:
    """What the file calls one of our tensors, or one layer of it."""
    if layer is None:
        return f"{_TOP[label]}.weight"
    return f"blk.{layer}.{_STACKED[label]}.weight"


def _rows(tensor: Any, rows: slice) -> np.ndarray:
    """Some rows of a tensor (elements, if it is a vector) as float32."""
    import gguf

    return gguf.dequantize(tensor.data[rows], tensor.tensor_type).astype(
        np.float32, copy=False
    )


def _factors(path: Path, tensor: Any) -> np.ndarray:
    if len(tensor.shape) != 1 or tensor.n_elements > 1 << 16:
        raise UserError(f"{path}: rope_freqs.weight has the shape {tensor.shape}")
    return _rows(tensor, slice(None))


def _check(path: Path, tensors: Mapping[str, Any], spec: Spec) -> None:
    """Raises UserError unless exactly the tensors of `spec` are there, and readable."""
    wanted: dict[str, tuple[int, ...]] = {}
    for label, shape in shapes(spec).items():
        axes = [n for axis, n in shape.items() if axis != "layer"]
        for layer in range(spec.layers) if "layer" in shape else (None,):
            wanted[_name(label, layer)] = matrix.stored(label, axes)
    for name, shape in wanted.items():
        if name not in tensors:
            raise _unfit(f"{path} has no tensor {name}", f"all tensors of {spec.name}")
        found = tuple(int(n) for n in reversed(tensors[name].shape))
        if found != shape:
            raise _unfit(
                f"{path}: {name} has shape {found}",
                f"{shape}, as the file's own metadata say",
            )
    for name in tensors:
        if name not in wanted:
            raise _unfit(
                f"{path} has the tensor {name[:80]!r}", f"the tensors of {spec.name}"
            )
    for kind, tensor in {t.tensor_type: t for t in tensors.values()}.items():
        try:
            _rows(tensor, slice(0, 1))
        except NotImplementedError:
            raise _unfit(
                f"{path}: {tensor.name} is quantised as {kind.name}",
                "a kind that the package gguf can dequantise",
            ) from None


def _unfit(got: str, expected: str) -> UserError:
    return UserError(got, expected, "take another conversion of the model")
