"""A Hugging Face directory as a source: config.json, safetensors, tokenizer files.

Everything in it is untrusted: the config is checked, every tensor has to be there with
the shape that the config implies, and files are looked for in the folder only.
Weights are read in slices, never a whole tensor for a part of it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from mu_jax.checkpoints import huggingface_spec, matrix
from mu_jax.checkpoints.huggingface import tensor_name
from mu_jax.checkpoints.huggingface_config import is_llama
from mu_jax.checkpoints.matrix import Index
from mu_jax.errors import UserError
from mu_jax.model import tokenizer
from mu_jax.model.params import shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Tokenizer

CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TOKENIZER = (
    tokenizer.PROTO,
    tokenizer.JSON,
    tokenizer.SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_PICKLES = ("*.bin", "*.pt", "*.pth")
_DTYPES = ("F32", "BF16", "F16")
_VISION = ("vision_tower.", "multi_modal_projector.")
_LARGEST_TEXT = 256 << 20
_SAMPLES = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """A checked checkpoint; `tensors` holds (name in the file, open file) of each."""

    path: Path
    spec: Spec
    digest: str
    config: Mapping[str, Any]
    tensors: Mapping[tuple[str, int | None], tuple[str, Any]]

    def tokenizer(self) -> Tokenizer:
        """That of the checkpoint; Gemma's is `tokenizer.model` where there is one.

        Raises:
          UserError: it is missing, cannot be read or has no BOS.
        """
        files = {
            name: _bytes(self.path / name)
            for name in _TOKENIZER
            if (self.path / name).is_file()
        }
        if is_llama(self.spec):
            files.pop(tokenizer.PROTO, None)  # not SentencePiece, or not Llama 3
        ids = {n: self.config.get(f"{n}_token_id") for n in ("bos", "pad")}
        try:
            return tokenizer.from_files(files, **ids)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None

    def part(self, label: str, layer: int | None, index: Index) -> np.ndarray:
        """See `Source`; norms in float32, the rest in the dtype of the file."""
        name, file = self.tensors[label, layer]
        stored = file.get_slice(name)
        if matrix.is_matrix(label):
            axes = list(shapes(self.spec)[label].values())[1:]
            return matrix.read(lambda r, c: stored[r, c], label, axes, index)
        value = stored[index]
        if label.endswith("norm"):
            scale = value.astype(np.float32)
            return scale if is_llama(self.spec) else 1 + scale
        return value


def open_folder(path: Path, name: str = "") -> Folder:
    """Checks a directory, without reading its weights.

    Args:
      name: what to call the model; by default as the folder.

    Raises:
      UserError: a config that does not fit, weights in another format, a truncated or
        missing file, an unknown or missing tensor, a wrong shape or dtype.
    """
    config = tokenizer.parsed(f"{path / CONFIG}", _bytes(path / CONFIG))
    spec = huggingface_spec.spec(config, name or path.resolve().name)
    files = _files(path)
    tensors = _tensors(path, files, spec)
    inner = config.get("text_config", {})
    return Folder(path, spec, _digest(path, files), {**inner, **config}, tensors)


def _files(path: Path) -> dict[str, Any]:
    """The open safetensors files of a directory, by name."""
    names = [_SINGLE]
    if (path / _INDEX).is_file():
        index = tokenizer.parsed(f"{path / _INDEX}", _bytes(path / _INDEX))
        listed = index.get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise UserError(f"{path / _INDEX} has no weight_map", "names of files")
        names = sorted({_inside(path, name) for name in listed.values()})
    elif not (path / _SINGLE).is_file():
        raise _without_weights(path)
    return {name: _open(path / name) for name in names}


def _inside(path: Path, name: Any) -> str:
    """A file name of an index, if it is one of the folder's own."""
    plain = isinstance(name, str) and name not in (".", "..")
    if not plain or Path(name).name != name or "\\" in name:
        raise UserError(
            f"{path / _INDEX} names the file {str(name)[:80]!r}",
            "files in the same folder",
            "fetch the checkpoint from where you trust it",
        )
    if not name.endswith(".safetensors"):
        raise UserError(
            f"{path / _INDEX} names the file {name[:80]!r}",
            "safetensors: pickled weights can run code and are not read",
            "convert the checkpoint to safetensors",
        )
    return name


def _without_weights(path: Path) -> UserError:
    pickled = sorted(f.name for pattern in _PICKLES for f in path.glob(pattern))
    got = f"the weights {pickled[0]}" if pickled else f"no {_SINGLE} or {_INDEX}"
    why = ": pickled ones can run code and are not read" if pickled else ""
    return UserError(
        f"{path} has {got}",
        f"weights as safetensors{why}",
        "convert the checkpoint to safetensors" if pickled else "fetch it again",
    )


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "numpy")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing", "all files of the checkpoint", "fetch it again"
        ) from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read ({error})",
            "a whole safetensors file",
            "it may be truncated: fetch it again",
        ) from None


def _tensors(
    path: Path, files: Mapping[str, Any], spec: Spec
) -> dict[tuple[str, int | None], tuple[str, Any]]:
    """(label, layer) -> (its name there, its file), once all are checked."""
    stored = {name: file for file in files.values() for name in file.keys()}  # noqa: SIM118
    wanted = _wanted(spec)
    prefixed = {_plain(name): name for name in stored}
    for name, tensor in prefixed.items():
        if name not in wanted and not _skipped(name, spec):
            raise UserError(
                f"{path} has the tensor {tensor[:80]!r}",
                f"the tensors of {spec.name} as its config.json describes it",
                "take a checkpoint without adapters, biases or quantisation",
            )
    out = {}
    for name, (label, layer) in wanted.items():
        if name not in prefixed:
            raise UserError(
                f"{path} lacks the tensor {name!r}",
                f"the tensors of {spec.name} as its config.json describes it",
                "fetch the checkpoint again",
            )
        tensor = prefixed[name]
        axes = [n for axis, n in shapes(spec)[label].items() if axis != "layer"]
        _check(path, tensor, stored[tensor], matrix.stored(label, axes))
        out[label, layer] = (tensor, stored[tensor])
    return out


def _wanted(spec: Spec) -> dict[str, tuple[str, int | None]]:
    """Name -> (label, layer) of every tensor of a text-only checkpoint."""
    out: dict[str, tuple[str, int | None]] = {}
    for label, shape in shapes(spec).items():
        for layer in range(spec.layers) if "layer" in shape else (None,):
            out[tensor_name(spec, label, layer)] = (label, layer)
    return out


def _plain(name: str) -> str:
    """A tensor's name in a text-only checkpoint; multimodal ones wrap it."""
    for wrapped in ("language_model.model.", "model.language_model."):
        if name.startswith(wrapped):
            return f"model.{name.removeprefix(wrapped)}"
    return name.removeprefix("language_model.")


def _skipped(name: str, spec: Spec) -> bool:
    """Whether a tensor is left out knowingly.

    These are vision, a second copy of a tied table, and what is computed.
    """
    copied = spec.tied and name == "lm_head.weight"
    seen = name.removeprefix("model.").startswith(_VISION)
    return copied or seen or name.endswith("rotary_emb.inv_freq")


def _check(path: Path, name: str, file: Any, shape: tuple[int, ...]) -> None:
    stored = file.get_slice(name)
    found, dtype = tuple(stored.get_shape()), stored.get_dtype()
    if found != shape:
        raise UserError(
            f"{path}: {name} has shape {list(found)}",
            f"{list(shape)}, as its config.json says",
            "fetch the checkpoint's own config.json",
        )
    if dtype not in _DTYPES:
        raise UserError(
            f"{path}: {name} is of dtype {dtype}",
            ", ".join(_DTYPES),
            "take a checkpoint that is not quantised",
        )


def _bytes(path: Path) -> bytes:
    """A small file, whole."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_TEXT:
            raise UserError(f"{path} has {size} bytes", f"at most {_LARGEST_TEXT}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror})",
            "the files of a Hugging Face checkpoint",
            "fetch it again",
        ) from None


def _digest(path: Path, files: Mapping[str, Any]) -> str:
    """A fingerprint: the config, the headers, and samples spread evenly over the data.

    Hashing all of it would have every host read the whole model.
    """
    state = xxhash.xxh3_128(_bytes(path / CONFIG))
    for name in sorted(files):
        with (path / name).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            head += file.read(min(int.from_bytes(head, "little"), size))
            state.update(f"{name} {size}".encode() + head)
            for i in range(_SAMPLES):
                file.seek(len(head) + (size - len(head)) * i // _SAMPLES)
                state.update(file.read(64))
    return state.hexdigest()
