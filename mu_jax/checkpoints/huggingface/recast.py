"""A Hugging Face directory in another format of numbers.

`transformers` loads a checkpoint in the dtype that its config names, whatever its
tensors are: one of float32 under a config that says bfloat16 is rounded as it is read.
So both change.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from mu_jax.checkpoints.huggingface.files import CONFIG, INDEX
from mu_jax.checkpoints.safetensors_file import DTYPES, places

_KEYS = ("dtype", "torch_dtype")
"""What a config calls it, now and before transformers 4.56."""


def recast(folder: Path, names: Iterable[str], dtype: str) -> None:
    """Casts every tensor of numbers in the safetensors files `names` of a folder.

    The config says so, and the index how many bytes there are now. One file at a time
    is in memory.
    """
    total = sum(_cast(folder / name, np.dtype(dtype)) for name in names)
    config = json.loads((folder / CONFIG).read_text())
    _say(config, dtype)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": total}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _cast(path: Path, dtype: np.dtype) -> int:
    """Casts a file; returns the bytes of its tensors."""
    found = places(path)
    with safe_open(path, "numpy") as file:
        said = file.metadata()
        tensors = {name: file.get_tensor(name) for name in found}
    for name, place in found.items():
        if place.dtype in DTYPES:
            tensors[name] = tensors[name].astype(dtype)
    partial = path.with_name(f"{path.name}.partial")
    save_file(tensors, partial, said)
    partial.chmod(0o644)
    partial.replace(path)
    return sum(tensor.nbytes for tensor in tensors.values())


def _say(config: dict[str, Any], dtype: str) -> None:
    """Puts the dtype wherever a config has one, at the top in any case."""
    for part in (config, *(v for v in config.values() if isinstance(v, dict))):
        for key in _KEYS:
            if key in part:
                part[key] = dtype
    if not any(key in config for key in _KEYS):
        config[_KEYS[0]] = dtype
