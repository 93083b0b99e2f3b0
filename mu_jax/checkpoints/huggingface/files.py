"""The files of a Hugging Face directory: opened lazily, and none outside of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open

from mu_jax import inputs
from mu_jax.checkpoints import pointer
from mu_jax.errors import UserError
from mu_jax.model.special import parsed

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth")
_LARGEST_TEXT = 256 << 20
_SAMPLES = 1024


def weights(path: Path, chosen: Any = None) -> dict[str, Any]:
    """The open safetensors files of a directory, by name: those transformers opens.

    The single file goes before an index that lies beside it.

    Args:
      chosen: what config.json names as `transformers_weights`.
    """
    if chosen not in (None, _SINGLE):
        raise UserError(
            f"{path / CONFIG} has its weights in {str(chosen)[:80]!r}",
            f"{_SINGLE}, or {INDEX} and what it names",
            f"rename the file, and drop transformers_weights from {CONFIG}",
        )
    names = [_SINGLE]
    if not (path / _SINGLE).is_file() and (path / INDEX).is_file():
        index = parsed(f"{path / INDEX}", content(path, INDEX))
        listed = index.get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise UserError(f"{path / INDEX} has no weight_map", "names of files")
        names = sorted({_inside(path, name) for name in listed.values()})
    elif not (path / _SINGLE).is_file():
        raise _without_weights(path)
    return {name: _open(own(path, name)) for name in names}


def _inside(path: Path, name: Any) -> str:
    """A file name of an index, if it is one of the folder's own."""
    plain = isinstance(name, str) and name not in (".", "..")
    if not plain or Path(name).name != name or "\\" in name:
        raise UserError(
            f"{path / INDEX} names the file {str(name)[:80]!r}",
            "files in the same folder",
            "fetch the checkpoint from where you trust it",
        )
    if not name.endswith(".safetensors"):
        raise UserError(
            f"{path / INDEX} names the file {name[:80]!r}",
            "safetensors: pickled weights can run code and are not read",
            "convert the checkpoint to safetensors",
        )
    return name


def _without_weights(path: Path) -> UserError:
    pickled = sorted(f.name for pattern in _PICKLES for f in path.glob(pattern))
    got = f"the weights {pickled[0]}" if pickled else f"no {_SINGLE} or {INDEX}"
    why = ": pickled ones can run code and are not read" if pickled else ""
    return UserError(
        f"{path} has {got}",
        f"weights as safetensors{why}",
        "convert the checkpoint to safetensors" if pickled else "fetch it again",
    )


def _open(path: Path) -> Any:
    pointer.check(path)
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


def own(folder: Path, name: str | Path) -> Path:
    """The file `name` of a folder.

    A link may point to another file of the folder, or, in a snapshot of the hub's
    cache, to the blobs beside it.

    Raises:
      UserError: a link that leads anywhere else, or what is no file, such as a pipe.
    """
    path = folder / name
    home = folder.resolve()
    homes = [home, *([home.parents[1] / "blobs"] if _is_snapshot(home) else [])]
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # which Python says of a circle up to 3.12
        target = Path()
    if not any(target.is_relative_to(here) for here in homes):
        raise UserError(
            f"{path} is a link that leads out of its folder",
            "the files of the model in one folder, or the hub's cache",
            "put the file itself there, or delete the link",
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a device, a pipe or the like", "a regular file")
    return path


def _is_snapshot(folder: Path) -> bool:
    """Whether a folder is a snapshot in the hub's cache: .../snapshots/COMMIT."""
    return folder.parent.name == "snapshots" and len(folder.parents) > 1


def content(folder: Path, name: str) -> bytes:
    """A small file of a folder, whole."""
    path = own(folder, name)
    pointer.check(path)
    try:
        return inputs.read(path, _LARGEST_TEXT)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror})",
            "the files of a Hugging Face checkpoint",
            "fetch it again",
        ) from None


def digest(path: Path, files: Mapping[str, Any]) -> str:
    """A fingerprint: the config, the headers, and samples spread evenly over the data.

    Hashing all of it would have every host read the whole model.
    """
    state = xxhash.xxh3_128(content(path, CONFIG))
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
