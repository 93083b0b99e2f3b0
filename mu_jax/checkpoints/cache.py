"""Converted models on disk: a folder each, named by what it came from.

    index.json           the spec, the digest of every other file, and of itself
    tables.safetensors   what has no layers: embedder, final_norm ...
    layer_000.safetensors ...    one layer of everything else
    tokenizer/           the tokenizer's files

Parameters are float32 in storage order. Files are written one at a time, so that a
conversion holds one layer, into a folder that gets its name when it is whole: a reader
never sees half of one, and what a killed process left goes at the next use. Reading
checks every digest, and is a source: a part is read from its file when it is asked for.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import platformdirs
import xxhash
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mu_jax import inputs
from mu_jax.checkpoints.matrix import Index
from mu_jax.checkpoints.source import Source
from mu_jax.devices import backends
from mu_jax.model import tokenizer
from mu_jax.model.params import shapes
from mu_jax.model.specs import RopeStretch, Spec
from mu_jax.types import Progress, Tokenizer, silent

_INDEX = "index.json"
_TABLES = "tables.safetensors"
_TOKENIZER = "tokenizer"
_PARTIAL = ".partial"
_VERSION = "5"
"""Raised whenever the meaning of a cached folder changes."""


def directory() -> Path:
    """Where converted models lie: $MU_JAX_CACHE or the user's cache directory."""
    chosen = os.environ.get("MU_JAX_CACHE") or platformdirs.user_cache_dir("mu_jax")
    path = inputs.local(chosen, "MU_JAX_CACHE")
    path.mkdir(parents=True, exist_ok=True)
    return path


def keep_programs() -> None:
    """Keeps compiled programs beside the models, for the next process.

    Unless $JAX_COMPILATION_CACHE_DIR says where they are kept.
    """
    backends.load_programs_quietly()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(directory() / "compiled"))


def entry(digest: str) -> Path:
    """The folder that holds the conversion of the source with this digest."""
    return directory() / f"{digest}-v{_VERSION}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Held by the one process that converts; others wait and then find the folder.

    Gives an empty folder beside `path` to work in, which is gone afterwards. What
    processes that were killed left in theirs, of any model, is taken away.
    """
    _sweep(path.parent)
    with _lock(path):
        room = _room(path)
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _room(path: Path) -> Path:
    return path.with_name(f"{path.name}{_PARTIAL}")


def _lock(path: Path, **how: Any) -> FileLock:
    return FileLock(path.with_name(f"{path.name}.lock"), **how)


def _sweep(folder: Path) -> None:
    """Deletes what nobody is making any more: no process holds its lock."""
    for room in folder.glob(f"*{_PARTIAL}"):
        owner = room.with_name(room.name.removesuffix(_PARTIAL))
        with suppress(Timeout), _lock(owner, timeout=0):
            shutil.rmtree(room, ignore_errors=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A cached model whose digests were right when it was opened."""

    spec: Spec
    digest: str
    words: Mapping[str, bytes]
    files: Mapping[str, Any]

    def tokenizer(self) -> Tokenizer:
        return tokenizer.from_files(self.words, rows=self.spec.vocabulary)

    def part(self, label: str, layer: int | None, index: Index) -> np.ndarray:
        """See `Source`; always float32."""
        return self.files[_file(layer)].get_slice(label)[index]


def write(path: Path, source: Source, progress: Progress = silent) -> None:
    """Puts a source at `path`, whole or not at all, in place of what was there.

    The caller holds the lock, unless nobody else can write there.
    """
    room = _room(path)
    folder = room / path.name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / _TOKENIZER).mkdir(parents=True)
        for name, data in source.tokenizer().files().items():
            (folder / _TOKENIZER / name).write_bytes(data)
        layers = (None, *range(source.spec.layers))
        for i, layer in enumerate(layers):
            progress("converting the weights", i, len(layers))
            save_file(_layer(source, layer), folder / _file(layer))
        names = sorted(f.relative_to(folder).as_posix() for f in _plain_files(folder))
        index = {
            "spec": dataclasses.asdict(source.spec),
            "source": source.digest,
            "files": {name: _digest(folder / name) for name in names},
        }
        text = json.dumps({**index, "digest": _of(index)})
        (folder / _INDEX).write_text(text)
        if path.exists():  # damaged, or it would have been read
            shutil.rmtree(path)
        folder.replace(path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def read(path: Path) -> Entry | None:
    """What `write` put at `path`; None if absent, or not what its digests say."""
    try:
        index = inputs.parsed(inputs.read(path / _INDEX))
        if index.pop("digest") != _of(index):
            return None
        spec = _spec(index["spec"])
        names = {f.relative_to(path).as_posix() for f in _plain_files(path)}
        if names != {*index["files"], _INDEX}:
            return None
        if any(_digest(path / name) != d for name, d in index["files"].items()):
            return None
        words = {f.name: f.read_bytes() for f in (path / _TOKENIZER).iterdir()}
        weights = {_file(layer) for layer in (None, *range(spec.layers))}
        files = {name: safe_open(path / name, "numpy") for name in weights}
        return Entry(spec, index["source"], words, files)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _layer(source: Source, layer: int | None) -> dict[str, np.ndarray]:
    """The parameters of one layer, or those without layers, in float32."""
    out = {}
    for label, shape in shapes(source.spec).items():
        if ("layer" in shape) == (layer is not None):
            whole = (slice(None),) * (len(shape) - (layer is not None))
            part = source.part(label, layer, whole)
            out[label] = np.ascontiguousarray(part, np.float32)
    return out


def _file(layer: int | None) -> str:
    return _TABLES if layer is None else f"layer_{layer:03}.safetensors"


def _plain_files(folder: Path) -> Iterator[Path]:
    return (f for f in folder.rglob("*") if f.is_file())


def _digest(path: Path) -> str:
    """Of a file's content, read a piece at a time."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def _of(index: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _spec(fields: dict[str, Any]) -> Spec:
    """The inverse of `dataclasses.asdict` and of JSON."""
    decoded: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
    }
    if decoded["rope_stretch"] is not None:
        decoded["rope_stretch"] = RopeStretch(**decoded["rope_stretch"])
    return Spec(**decoded)
