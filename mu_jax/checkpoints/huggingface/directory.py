"""Edited models as Hugging Face directories, which `transformers` opens.

Over a base that is such a directory, everything is copied and the edited tensors' bytes
are overwritten in place: all else is the base's, byte for byte, by construction. A link
in it that leads out of it is refused, but for those to the blobs of the hub's cache.
From any other base the directory is written anew.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import sentencepiece

from mu_jax.checkpoints.huggingface.config import config
from mu_jax.checkpoints.huggingface.files import own
from mu_jax.checkpoints.huggingface.names import leave, plain, tensor_name, tensors
from mu_jax.checkpoints.huggingface.recast import recast
from mu_jax.checkpoints.safetensors_file import (
    Place,
    dtype_of,
    overwrite,
    places,
    write_shards,
)
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Edit, Progress, Tokenizer, silent

_OTHER_WEIGHTS = {
    *(".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pkl", ".pickle"),
    *(".pt", ".pth", ".safetensors", ".tflite"),
}
"""Weights that `transformers` does not open beside `model*.safetensors`: copied, they
would keep what was edited away."""

_OPENED = "model*.safetensors"


def is_directory(path: Path | None) -> TypeGuard[Path]:
    """Whether this is a Hugging Face directory with safetensors."""
    return bool(path and (path / "config.json").is_file() and any(path.glob(_OPENED)))


def write(
    folder: Path, model: Model, dtype: Any = None, progress: Progress = silent
) -> None:
    """Writes a whole model into an empty folder, with its tokenizer if it has files.

    Args:
      dtype: of all tensors; by default that of the parameters.

    Raises:
      UserError: `transformers` has no config for such a network.
    """
    spec, tokenizer = model.spec, model.tokenizer
    dtype = np.dtype(dtype or model.params["embedder"].dtype)
    described = config(spec, dtype.name) | {"bos_token_id": tokenizer.bos}
    ends = list(tokenizer.ends)
    described["eos_token_id"] = ends if len(ends) > 1 else next(iter(ends), None)
    total = sum(shape.get("layer", 1) for shape in shapes(spec).values())

    def told() -> Iterator[tuple[str, np.ndarray]]:
        for i, tensor in enumerate(tensors(spec, model.params, dtype)):
            progress("writing tensors", i + 1, total)
            yield tensor

    write_shards(folder, told())
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    for name, content in tokenizer_files(tokenizer).items():
        (folder / name).write_bytes(content)


def dtypes(
    base: Path, spec: Spec, tensors: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], np.dtype]:
    """In which formats a directory holds tensors of ours, by (label, layer)."""
    where = _where(base)
    found = {}
    for label, layer in tensors:
        name = _named(where, base, tensor_name(spec, label, layer))
        found[label, layer] = dtype_of(
            base / where[name][0][0], name, where[name][0][1]
        )
    return found


def patch(
    folder: Path,
    base: Path,
    spec: Spec,
    edit: Edit,
    dtype: str | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Copies the directory `base` into an empty folder, with the edit's tensors.

    Args:
      dtype: what all tensors of numbers become, and what the config says they are; by
        default each stays what it is, and so do the bytes of all that is not edited.

    Returns:
      The files left out: weights in other formats, which would be the unedited ones.

    Raises:
      UserError: a file is damaged, or has no such tensor.
    """
    where = _where(base)
    planned = [
        (_named(where, base, tensor_name(spec, label, layer)), label, i)
        for label, layers in edit.selection.tensors
        for i, layer in enumerate(layers)
    ]
    left_out = _copy(base, folder, progress)
    if dtype:
        recast(folder, sorted(p.name for p in folder.glob(_OPENED)), dtype)
        where = _where(folder)
    host = {
        label: np.asarray(edit.params[label].unwrap(*shapes(spec)[label]))
        for label, _ in edit.selection.tensors
    }
    for n, (name, label, i) in enumerate(planned):
        value = leave(spec, label, host[label][i])
        for file, place in where[name]:
            overwrite(folder / file, name, place, value)
        progress("writing edited tensors", n + 1, len(planned))
    return left_out


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """A tokenizer's files, such that `AutoTokenizer` opens them; a toy has none."""
    found = dict(tokenizer.files())
    if "tokenizer.model" in found and "tokenizer_config.json" not in found:
        described = _sentencepiece_config(found["tokenizer.model"])
        found["tokenizer_config.json"] = json.dumps(described, indent=2).encode()
    return found


def _sentencepiece_config(proto: bytes) -> dict[str, Any]:
    """What Gemma's `tokenizer_config.json` has to say."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    special = {
        f"{name}_token": pieces.id_to_piece(index)
        for name in ("bos", "eos", "pad", "unk")
        if (index := getattr(pieces, f"{name}_id")()) >= 0
    }
    flags = {"add_bos_token": True, "add_eos_token": False}
    return {"tokenizer_class": "GemmaTokenizer", **special, **flags}


def _where(base: Path) -> dict[str, list[tuple[str, Place]]]:
    """The files that hold each tensor: those of one name are kept alike."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for path in sorted(base.glob(_OPENED)):
        for name, place in places(own(base, path.name)).items():
            found.setdefault(name, []).append((path.name, place))
    return found


def _named(where: dict, base: Path, name: str) -> str:
    """`name` as the files of `base` spell it."""
    for found in where:
        if plain(found) == name:
            return found
    raise UserError(
        f"{base} has no tensor {name}",
        "the directory of the model that was edited",
        "export over that one",
    )


def _copy(base: Path, folder: Path, progress: Progress) -> list[str]:
    """Copies what is not hidden; a link becomes the file that it points to.

    Raises:
      UserError: a link that leads out of the directory.
    """
    inside = sorted(p.relative_to(base) for p in base.rglob("*"))
    seen = [p for p in inside if not any(part.startswith(".") for part in p.parts)]
    for path in seen:
        own(base, path)
    seen = [p for p in seen if (base / p).is_file()]
    opened = {p.relative_to(base) for p in base.glob(_OPENED)}
    wanted = [p for p in seen if p in opened or p.suffix.lower() not in _OTHER_WEIGHTS]
    for i, path in enumerate(wanted):
        progress("copying files", i, len(wanted))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / path, folder / path)
    progress("copying files", len(wanted), len(wanted))
    return [str(p) for p in seen if p not in wanted]
