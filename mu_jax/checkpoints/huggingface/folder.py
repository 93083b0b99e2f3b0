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

from mu_jax.checkpoints import matrix
from mu_jax.checkpoints.huggingface import spec as huggingface_spec
from mu_jax.checkpoints.huggingface.config import is_llama
from mu_jax.checkpoints.huggingface.files import CONFIG, content, digest, weights
from mu_jax.checkpoints.huggingface.names import plain, tensor_name
from mu_jax.checkpoints.matrix import Index
from mu_jax.errors import UserError
from mu_jax.model import special, tokenizer
from mu_jax.model.params import shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Tokenizer

_TOKENIZER = (
    *(special.PROTO, special.JSON, special.SETTINGS, special.NAMES, special.ADDED),
    special.GENERATION,
    "chat_template.jinja",
)
_DTYPES = ("F32", "BF16", "F16")
_HEAD = "lm_head.weight"
_ROWS = 4096
"""Of two tables, so many are compared at once."""
_VISION = ("vision_tower.", "multi_modal_projector.")


@dataclasses.dataclass(frozen=True, eq=False)
class Folder:
    """A checked checkpoint; `tensors` holds (name in the file, open file) of each."""

    path: Path
    spec: Spec
    digest: str
    config: Mapping[str, Any]
    tensors: Mapping[tuple[str, int | None], tuple[str, Any]]

    def tokenizer(self) -> Tokenizer:
        """That of the checkpoint, as `transformers` reads it.

        Raises:
          UserError: it is missing, cannot be read, has no BOS, puts a space in front
            of a text, or is contradicted by another file.
        """
        files = {
            name: content(self.path, name)
            for name in _TOKENIZER
            if (self.path / name).is_file()
        }
        ids = {n: self.config.get(f"{n}_token_id") for n in ("bos", "pad", "eos")}
        try:
            return tokenizer.from_files(files, **ids, rows=self.spec.vocabulary)
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
    config = special.parsed(f"{path / CONFIG}", content(path, CONFIG))
    spec = huggingface_spec.spec(config, name or path.resolve().name)
    files = weights(path, config.get("transformers_weights"))
    tensors = _tensors(path, files, spec)
    inner = config.get("text_config", {})
    return Folder(path, spec, digest(path, files), {**inner, **config}, tensors)


def _tensors(
    path: Path, files: Mapping[str, Any], spec: Spec
) -> dict[tuple[str, int | None], tuple[str, Any]]:
    """(label, layer) -> (its name there, its file), once all are checked."""
    named = [(name, file) for file in files.values() for name in file.keys()]  # noqa: SIM118
    stored, wanted = dict(named), _wanted(spec)
    prefixed = {plain(name): name for name in stored}
    twice = [n for n, _ in named if prefixed[plain(n)] != n]
    if twice or len(stored) != len(named):
        raise UserError(
            f"{path} has {twice[0] if twice else 'a tensor'} twice",
            "each tensor in one file",
            "fetch the checkpoint again",
        )
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
            headless = label == "unembedder" and "embed_tokens.weight" in stored
            raise UserError(
                f"{path} lacks the tensor {name!r}",
                f"the tensors of {spec.name} as its config.json describes it",
                "AutoModel leaves it out: save the model with AutoModelForCausalLM"
                if headless
                else "fetch the checkpoint again",
            )
        tensor = prefixed[name]
        axes = [n for axis, n in shapes(spec)[label].items() if axis != "layer"]
        _check(path, tensor, stored[tensor], matrix.stored(label, axes))
        out[label, layer] = (tensor, stored[tensor])
    if spec.tied and _HEAD in prefixed:
        name = prefixed[_HEAD]
        _one_table(path, out["embedder", None], (name, stored[name]))
    return out


def _one_table(path: Path, *pair: tuple[str, Any]) -> None:
    """Raises UserError unless both tables are the same, as the config says."""
    one, other = (file.get_slice(name) for name, file in pair)
    size = one.get_shape()[0]
    cuts = (slice(i, min(i + _ROWS, size)) for i in range(0, size, _ROWS))
    if one.get_shape() != other.get_shape() or not all(
        np.array_equal(one[cut], other[cut]) for cut in cuts
    ):
        raise UserError(
            f"{path}: {pair[1][0]} differs from {pair[0][0]}",
            "one table for both: its config.json has them tied (tie_word_embeddings)",
            "drop the one that should not be there, or untie them if it is a Llama",
        )


def _wanted(spec: Spec) -> dict[str, tuple[str, int | None]]:
    """Name -> (label, layer) of every tensor of a text-only checkpoint."""
    out: dict[str, tuple[str, int | None]] = {}
    for label, shape in shapes(spec).items():
        for layer in range(spec.layers) if "layer" in shape else (None,):
            out[tensor_name(spec, label, layer)] = (label, layer)
    return out


def _skipped(name: str, spec: Spec) -> bool:
    """Whether a tensor is left out knowingly.

    These are vision, a second copy of a tied table (see `_one_table`), and what is
    computed.
    """
    copied = spec.tied and name == _HEAD
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
