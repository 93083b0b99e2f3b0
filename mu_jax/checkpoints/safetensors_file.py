"""Safetensors files: where each tensor lies, overwriting one, writing shards."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mu_jax import inputs
from mu_jax.checkpoints import pointer
from mu_jax.errors import UserError

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""The formats of numbers that a tensor may be rounded to."""

SHARD = 1 << 30
"""Bytes of tensors a file, unless one alone is larger."""


class Place(NamedTuple):
    """A tensor in a file: its format, its shape, its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int


def places(path: Path) -> dict[str, Place]:
    """Every tensor of a file by its name.

    Raises:
      UserError: not a whole safetensors file.
    """
    pointer.check(path)
    try:
        with safe_open(path, "numpy"):  # holds the header against the file's length
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = inputs.parsed(file.read(length))
    except (SafetensorError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error})",
            "a whole safetensors file",
            "it may be truncated: fetch it again",
        ) from None
    return {
        name: Place(
            entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def dtype_of(path: Path, name: str, place: Place) -> np.dtype:
    """The format of the tensor `name` that lies at `place`, for numpy.

    Raises:
      UserError: a format that nothing is rounded to.
    """
    if place.dtype not in DTYPES:
        raise UserError(
            f"{path} has {name} in the format {place.dtype}",
            f"one of {', '.join(DTYPES)}",
            "export a base that is not quantised",
        )
    return np.dtype(DTYPES[place.dtype])


def overwrite(path: Path, name: str, place: Place, value: np.ndarray) -> None:
    """Puts `value`, rounded to the file's format, where the tensor `name` lies.

    No other byte changes.

    Raises:
      UserError: another shape, a format that nothing is rounded to, or a number that
        the format cannot hold.
    """
    dtype = dtype_of(path, name, place)
    if place.shape != value.shape:
        raise UserError(
            f"{path} has {name} of shape {list(place.shape)}",
            f"{list(value.shape)}, that of the edit",
            "export over the base that was edited",
        )
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(value.astype(dtype))
    if not np.isfinite(rounded).all():
        raise UserError(
            f"the edit's {name} is not finite in {place.dtype}",
            "numbers that the base's format can hold",
            "edit again with a smaller learning rate",
        )
    with path.open("r+b") as file:
        file.seek(place.start)
        file.write(rounded.tobytes())


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], shard: int = SHARD
) -> None:
    """Writes `model.safetensors`, or numbered shards and their index.

    At most one shard is held in memory. The metadata say "pt", without which
    `transformers` refuses a file.
    """
    names: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = 0

    def flush():
        part = folder / f"{len(names)}.partial"
        save_file(held, part, {"format": "pt"})
        part.chmod(0o644)  # not the writer's alone
        names.append(list(held))
        held.clear()

    for name, value in tensors:
        if held and sum(v.nbytes for v in held.values()) + value.nbytes > shard:
            flush()
        held[name] = np.ascontiguousarray(value)
        total += value.nbytes
    flush()
    if len(names) == 1:
        (folder / "0.partial").replace(folder / "model.safetensors")
        return
    where = {}
    for i, inside in enumerate(names):
        file = f"model-{i + 1:05}-of-{len(names):05}.safetensors"
        (folder / f"{i}.partial").replace(folder / file)
        where |= dict.fromkeys(inside, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    text = json.dumps(index, indent=1) + "\n"
    (folder / "model.safetensors.index.json").write_text(text)
