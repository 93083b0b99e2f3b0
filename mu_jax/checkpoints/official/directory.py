"""Official checkpoints (orbax) on disk: read straight into shards, and written.

They are read by the `gemma` package's own loader, each tensor onto the devices that
will hold it, and rearranged there into our stacks, one official path at a time; what
has been rearranged is freed. They are written as that package does, by orbax.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from mu_jax.checkpoints import damage, pointer
from mu_jax.checkpoints.huggingface.config import is_llama
from mu_jax.checkpoints.official.layout import (
    TOP,
    Tensor,
    check,
    enter,
    leaves,
    nested,
    official_arrays,
    official_axes,
    official_shapes,
    table,
)
from mu_jax.devices.sharding import Layout
from mu_jax.errors import UserError
from mu_jax.model.params import Params, dtype_of, name_axes, shapes
from mu_jax.model.releases import SPECS
from mu_jax.model.specs import Spec
from mu_jax.types import Progress, silent

TOKENIZER = "tokenizer.model"
_MARKS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
_NOT_TEXT = ("SigLiP", "vision_encoder/", "embedder/mm_")
_GATING = "mlp/gating_einsum"


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is of orbax's making."""
    return any((path / mark).is_file() for mark in _MARKS)


def load(
    path: Path,
    layout: Layout | None = None,
    dtype: Any = jnp.float32,
    spec: Spec | None = None,
    progress: Progress = silent,
) -> tuple[Spec, Params]:
    """The spec and the text parameters of an official checkpoint.

    Args:
      path: the folder that orbax wrote.
      layout: where the parameters go; None: the first device.
      dtype: of the matrices; norms become 1 + w in float32, and stay so.
      spec: what the model is; None: the row of SPECS with exactly these tensors.

    Raises:
      UserError: not an official checkpoint, or one of another model.
    """
    stored = _stored(path)
    found = {name: tuple(array.shape) for name, array in stored.items()}
    spec = spec or find(path, found)
    gating = found.get(f"layer_0/{_GATING}", ())
    transpose = gating[1:] == (spec.neurons, spec.embedding)
    check(found, official_shapes(spec, transpose), spec)
    first = SingleDeviceSharding(jax.devices()[0])
    place = layout.weights if layout else lambda axes: first
    target = {
        name: jax.ShapeDtypeStruct(
            found[name], stored[name].dtype, sharding=place(axes)
        )
        for name, axes in official_axes(spec, transpose).items()
    }
    flat = _restored(path, target, progress)
    top = {name: Tensor((label,), ()) for label, name in TOP.items()}
    parts = {**top, **table(spec, transpose)}
    params: Params = {}
    for done, (name, tensor) in enumerate(parts.items()):
        progress("rearranging", done, len(parts))
        layers = [f"layer_{i}/{name}" for i in range(spec.layers)]
        arrays = [flat.pop(n) for n in ([name] if name in top else layers)]
        params |= _rearranged(arrays, tensor, spec, dtype, place)
    progress("rearranging", len(parts), len(parts))
    return spec, {label: params[label] for label in shapes(spec)}


def save(folder: Path, spec: Spec, params: Params, dtype: Any = None) -> None:
    """Writes an official checkpoint into a folder, beside what is there.

    Args:
      dtype: of all tensors; by default each stays what it is.

    Raises:
      UserError: the spec is not of a Gemma.
    """
    tree = official_arrays(params, spec, transposed(spec))
    tree = jax.tree.map(lambda x: x.astype(dtype or x.dtype, copy=False), tree)
    inner = folder.absolute() / "checkpoint"  # orbax wants a folder of its own
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(inner, tree)
    for entry in inner.iterdir():
        entry.replace(inner.parent / entry.name)
    inner.rmdir()


def transposed(spec: Spec) -> bool:
    """Whether the official class of this size has `transpose_gating_einsum`."""
    gemma_2b = spec.post_norms and not spec.qk_norm and spec.layers == 26
    return spec.post_norms and not gemma_2b


def tokenizer(path: Path) -> bytes:
    """The SentencePiece model in the checkpoint's folder, or in the one around it.

    Raises:
      UserError: there is none; official checkpoints come without.
    """
    for folder in (path, path.absolute().parent):
        if (folder / TOKENIZER).is_file():
            pointer.check(folder / TOKENIZER)
            return (folder / TOKENIZER).read_bytes()
    raise UserError(
        f"no {TOKENIZER} in {path} or beside it",
        "Gemma's SentencePiece model, which official checkpoints do not hold",
        f"put it there as {path / TOKENIZER}",
    )


def find(path: Path, found: Mapping[str, tuple[int, ...]]) -> Spec:
    """The row of SPECS whose official tensors have exactly these shapes."""
    for spec in SPECS.values():
        if not is_llama(spec) and found in (
            official_shapes(spec, True),
            official_shapes(spec, False),
        ):
            return spec
    names = [name for name, spec in SPECS.items() if not is_llama(spec)]
    table_ = found.get(TOP["embedder"], ())
    layers = {name.partition("/")[0] for name in found if name.startswith("layer_")}
    raise UserError(
        f"{path} holds {len(layers)} layers and an embedding table {list(table_)}",
        f"the tensors of one of {', '.join(names)}",
        "check that it is a whole official checkpoint of one of these",
    )


def _stored(path: Path) -> dict[str, Any]:
    """Shape and dtype of every text tensor, by its path in the model."""
    with _readable(path), ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path.absolute()).item_metadata
        flat = dict(leaves(dict(stored.tree)))
    if any("stacked_layers" in name for name in flat):
        raise UserError(
            f"{path} holds stacked layers",
            "an official checkpoint of Gemma 2 or 3, one entry a layer",
            "take another release of the model",
        )
    clean = {name.removeprefix("transformer/"): array for name, array in flat.items()}
    return {
        name.removesuffix("/w") if "/mlp/" in name else name: array
        for name, array in clean.items()
        if not name.startswith(_NOT_TEXT)
    }


def _restored(path: Path, target: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Every official tensor, where `target` says."""
    from gemma import gm

    progress(f"reading {path.name}", 0, 1)
    with _readable(path):
        tree = gm.ckpts.load_params(path.absolute(), params=nested(target))
    progress(f"reading {path.name}", 1, 1)
    return dict(leaves(tree))


def _rearranged(arrays: list, tensor: Tensor, spec: Spec, dtype: Any, place) -> Params:
    """Our labels out of one official tensor of all layers, which is freed."""
    shape, order = shapes(spec), tensor.axes or None

    def rearrange(arrays):
        value = jnp.stack(arrays) if order else arrays[0]
        several = len(tensor.labels) > 1
        parts = jnp.unstack(value, axis=1) if several else (value,)
        out = {}
        for label, part in zip(tensor.labels, parts, strict=True):
            exact = part.astype(jnp.float32) if label.endswith("norm") else part
            made = enter(exact, label, spec, order)
            out[label] = made.astype(dtype_of(label, dtype))
        return out

    where = {label: place(shape[label]) for label in tensor.labels}
    made = jax.jit(rearrange, out_shardings=where)(arrays)
    jax.block_until_ready(made)
    for array in arrays:
        array.delete()
    return {label: name_axes(label, value, spec) for label, value in made.items()}


def _readable(path: Path):
    return damage.readable(
        path,
        "a whole official checkpoint, as orbax wrote it",
        "fetch it again: a file of it may be cut or missing",
    )
