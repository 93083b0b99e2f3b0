"""A delta in one safetensors file.

    old/mlp/gate/3   the base's tensor, in its format         new/mlp/gate/3   float32

The header's metadata hold the format, the spec, the name, the provenance (JSON) and, as
JSON, the SHA-256 of every tensor: of the old ones, by which a base is known, and of the
new. `digest` is that of the metadata themselves.
"""

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mu_jax import inputs
from mu_jax.checkpoints import pointer
from mu_jax.checkpoints.delta import Change, Delta
from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP

SUFFIX = ".safetensors"
_FORMAT = "mu_jax delta 1"
_KEY = re.compile(rf"(old|new)/({'|'.join((*ATTENTION, *MLP))})/(0|[1-9]\d{{0,3}})")
_OLD = (np.float32, np.float16, ml_dtypes.bfloat16)
_DAMAGE = (
    SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError,
)  # fmt: skip


def write(path: Path, delta: Delta) -> None:
    """Puts a delta at `path`, whole or not at all."""
    tensors = {
        f"{side}/{label}/{layer}": np.ascontiguousarray(array)
        for (label, layer), change in delta.changes.items()
        for side, array in change._asdict().items()
    }
    metadata = {
        "format": _FORMAT,
        "spec": delta.spec,
        "name": delta.name,
        "provenance": json.dumps(delta.provenance),
        "hashes": json.dumps({key: _hash(value) for key, value in tensors.items()}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, partial, metadata | {"digest": _digest(metadata)})
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def read(path: Path) -> Delta:
    """The delta at `path`, every tensor checked against its hash.

    Raises:
      UserError: no delta, a damaged or an altered one.
    """
    if not path.is_file():
        raise UserError(f"no file {path}", "a delta", "check the path's spelling")
    pointer.check(path)
    try:
        with safe_open(path, "numpy") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != _FORMAT:
                raise UserError(
                    f"{path} is not a delta",
                    f"a safetensors file of the format {_FORMAT!r}",
                    "make one with: mu export RUN --to delta DIR",
                )
            if metadata.pop("digest", "") != _digest(metadata):
                raise _altered(path, "its metadata")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        hashes = inputs.parsed(metadata["hashes"])
        provenance = dict(inputs.parsed(metadata["provenance"]))
        for key in sorted(hashes.keys() | tensors.keys()):
            if key not in tensors or hashes.get(key) != _hash(tensors[key]):
                raise _altered(path, key)
        changes = _changes(path, tensors)
        return Delta(metadata["spec"], metadata["name"], changes, provenance)
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            "a whole delta",
            "it may be truncated: fetch or export it again",
        ) from None


def _changes(path: Path, tensors: dict[str, np.ndarray]) -> dict:
    """The pairs of old and new, once each key and each pair is known to be sound."""
    pairs: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for key, value in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise _altered(path, key)
        side, label, layer = match.groups()
        pairs.setdefault((label, int(layer)), {})[side] = value
    for (label, layer), pair in pairs.items():
        if (
            pair.keys() != {"old", "new"}
            or pair["old"].shape != pair["new"].shape
            or pair["new"].dtype != np.float32
            or pair["old"].dtype not in _OLD
        ):
            raise _altered(path, f"{label}/{layer}")
    return {matrix: Change(**pairs[matrix]) for matrix in sorted(pairs)}


def _altered(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what} is not what was written",
        "a delta as mu wrote it",
        "it was altered or damaged: fetch or export it again",
    )


def _hash(array: np.ndarray) -> str:
    state = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return state.hexdigest()


def _digest(metadata: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(metadata.items())).encode()).hexdigest()
