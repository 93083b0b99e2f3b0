"""Official checkpoints (orbax) on disk: read straight into shards, and written.

They are read by the `gemma` package's own loader, each tensor onto the devices that will
hold it, and rearranged there into our stacks, one official path at a time; what has been
rearranged is freed. They are written as that package does, by orbax.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding

from mu_jax.checkpoints.huggingface_config import is_llama
from mu_jax.checkpoints.official import (
    TOP,
    check,
    enter,
    leaves,
    nested,
    official_axes,
    official_shapes,
    table,
    to_official,
)
from mu_jax.errors import UserError
from mu_jax.model.params import Params, name_axes, shapes
from mu_jax.model.specs import SPECS, Spec
from mu_jax.sharding import Layout, fetch
from mu_jax.types import Progress, silent

TOKENIZER = "tokenizer.model"
_NOT_TEXT = ("SigLiP", "vision_encoder/", "embedder/mm_")
_GATING = "mlp/gating_einsum"


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
      dtype: what they are cast to. Norms become 1 + w in float32 before that.
      spec: what the model is; None: the row of SPECS with exactly these tensors.

    Raises:
      UserError: not an official checkpoint, or one of another model.
    """
    stored = _stored(path)
    found = {name: tuple(array.shape) for name, array in stored.items()}
    spec = spec or find(path, found)
    transpose = found.get(f"layer_0/{_GATING}", ())[1:] == (spec.neurons, spec.embedding)
    check(found, official_shapes(spec, transpose), spec)

    def place(axes: Mapping[str, int]) -> Sharding:
        return layout.weights(axes) if layout else SingleDeviceSharding(jax.devices()[0])

    target = {
        name: jax.ShapeDtypeStruct(
            tuple(axes.values()), stored[name].dtype, sharding=place(axes)
        )
        for name, axes in official_axes(spec, transpose).items()
    }
    flat = _restored(path, target, progress)
    layers = [f"layer_{i}/" for i in range(spec.layers)]
    parts = {path: ((label,), None) for label, path in TOP.items()}
    parts |= {path: tuple(part) for path, part in table(spec, transpose).items()}
    params: Params = {}
    for done, (path_, (labels, order)) in enumerate(parts.items()):
        progress("rearranging", done, len(parts))
        names = [path_] if order is None else [layer + path_ for layer in layers]
        arrays = [flat.pop(name) for name in names]
        for label, value in _stacked(arrays, labels, order, spec, dtype, place).items():
            params[label] = name_axes(label, value, spec)
        for array in arrays:
            if not any(array is kept.data_array for kept in params.values()):
                array.delete()
    progress("rearranging", len(parts), len(parts))
    return spec, {label: params[label] for label in shapes(spec)}


def save(path: Path, spec: Spec, params: Params, dtype: Any = None) -> None:
    """Writes an official checkpoint at `path`, where nothing is yet.

    Args:
      dtype: of all tensors; by default each stays what it is.

    Raises:
      UserError: the spec is not of a Gemma.
    """
    whole = {label: name_axes(label, _plain(params, label), spec) for label in params}
    tree = to_official(whole, spec, transpose_gating_einsum=transposed(spec))
    tree = jax.tree.map(lambda x: np.asarray(x, dtype or x.dtype), tree)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


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
    table_ = found.get(TOP["embedder"], ())
    layers = {name.partition("/")[0] for name in found if name.startswith("layer_")}
    raise UserError(
        f"{path} holds {len(layers)} layers and an embedding table {list(table_)}",
        f"the tensors of one of {', '.join(k for k, s in SPECS.items() if _gemma(s))}",
        "check that it is a whole official checkpoint of one of these",
    )


def _gemma(spec: Spec) -> bool:
    return not is_llama(spec)


def _stored(path: Path) -> dict[str, Any]:
    """What orbax knows of every text tensor (shape, dtype), by its path in the model."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(path.absolute()).item_metadata
            flat = dict(leaves(dict(stored.tree)))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from None
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
    try:
        tree = gm.ckpts.load_params(path.absolute(), params=nested(target))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from None
    progress(f"reading {path.name}", 1, 1)
    return dict(leaves(tree))


def _stacked(arrays, labels, order, spec, dtype, place) -> dict[str, jax.Array]:
    """Our labels out of one official tensor of all layers, on the devices."""
    axes = shapes(spec)

    def rearrange(arrays):
        value = arrays[0] if order is None else jnp.stack(arrays)
        parts = jnp.unstack(value, axis=1) if len(labels) > 1 else (value,)
        out = {}
        for label, part in zip(labels, parts, strict=True):
            exact = part.astype(jnp.float32) if label.endswith("norm") else part
            out[label] = enter(exact, label, spec, order).astype(dtype)
        return out

    where = {label: place(axes[label]) for label in labels}
    return jax.jit(rearrange, out_shardings=where)(arrays)


def _plain(params: Params, label: str) -> np.ndarray:
    return fetch(params[label].unwrap(*params[label].named_shape))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read ({type(error).__name__})",
        "an official checkpoint, as orbax wrote it",
        "check the path, or fetch it again",
    )
