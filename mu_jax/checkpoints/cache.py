"""Converted models on disk: one safetensors file each, named by what it came from.

A file holds the float32 parameters, the tokenizer and the spec. It is written under
another name and renamed when whole, so that a reader never sees half of one; a digest
over all of it is checked on every load.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import xxhash
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mu_jax.model.specs import Spec

_TOKENIZER = "tokenizer"
_VERSION = "1"
"""Raised whenever the meaning of a cached file changes."""


def directory() -> Path:
    """Where converted models lie: $MU_JAX_CACHE or the user's cache directory."""
    chosen = os.environ.get("MU_JAX_CACHE") or platformdirs.user_cache_dir("mu_jax")
    path = Path(chosen)
    path.mkdir(parents=True, exist_ok=True)
    return path


def entry(source: str) -> Path:
    """The file that holds the conversion of the source with this hex digest."""
    return directory() / f"{source}-v{_VERSION}.safetensors"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by the one process that converts; others wait and then find the file."""
    with FileLock(path.with_suffix(".lock")):
        yield


def write(
    path: Path, spec: Spec, params: dict[str, np.ndarray], tokenizer: bytes
) -> None:
    """Puts a converted model at `path`, whole or not at all."""
    tensors = {**params, _TOKENIZER: np.frombuffer(tokenizer, np.uint8)}
    tensors = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    described = json.dumps(dataclasses.asdict(spec))
    metadata = {"spec": described, "digest": _digest(tensors, described)}
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        save_file(tensors, partial, metadata)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def read(path: Path) -> tuple[Spec, dict[str, np.ndarray], bytes] | None:
    """What `write` put at `path`; None if it is absent or does not match its digest."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(tensors, metadata["spec"]):
            return None
        tokenizer = tensors.pop(_TOKENIZER).tobytes()
        fields = json.loads(metadata["spec"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    tuples: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
    }
    return Spec(**tuples), tensors, tokenizer


def _digest(tensors: dict[str, np.ndarray], spec: str) -> str:
    state = xxhash.xxh3_128(spec.encode())
    for name in sorted(tensors):
        array = tensors[name]
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()
