"""Our parameters in the layout of the official Flax Gemma (`gemma.gm.nn`), and back.

    ours                         official
    embedder                     embedder/input_embedding
    final_norm                   final_norm/scale               w

and, with a leading `layer` axis here, once in each `layer_{i}` there:

    pre_attention_norm           pre_attention_norm/scale       w
    attention/query              attn/q_einsum/w                [head, embedding, p]
    attention/key, value         attn/kv_einsum/w               [2, group, embedding, p]
    attention/query, key, value  attn/qkv_einsum/w              [3, head, embedding, p]
    attention/query_norm         attn/_query_norm/scale         w
    attention/key_norm           attn/_key_norm/scale           w
    attention/output             attn/attn_vec_einsum/w         [head, p, embedding]
    post_attention_norm          post_attention_norm/scale      w
    pre_mlp_norm                 pre_ffw_norm/scale             w
    mlp/gate, up                 mlp/gating_einsum              [2, neurons, embedding]
    mlp/down                     mlp/linear                     [neurons, embedding]
    post_mlp_norm                post_ffw_norm/scale            w

p is `projection`. w: official norms multiply by 1 + w and ours by their scale, so that
w = scale - 1. `qkv_einsum` stands in for `q_einsum` and `kv_einsum` where every head
has its own keys. A head's index is group * query_heads + query. `gating_einsum` is
[2, embedding, neurons] where the official config has no `transpose_gating_einsum`
(Gemma 1 and Gemma 2 2B).

Trees are rearranged on the host, and no array is cast: convert a bfloat16 tree to
float32 before `from_official`, or 1 + w is rounded. `official_dir` reads and writes
them on disk.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mu_jax.checkpoints.huggingface.config import is_llama
from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.model.params import Params, name_axes, shapes
from mu_jax.model.specs import Spec

TOP = {"embedder": "embedder/input_embedding", "final_norm": "final_norm/scale"}
_NORMS = {
    "pre_attention_norm": "pre_attention_norm/scale",
    "post_attention_norm": "post_attention_norm/scale",
    "pre_mlp_norm": "pre_ffw_norm/scale",
    "post_mlp_norm": "post_ffw_norm/scale",
    "attention/query_norm": "attn/_query_norm/scale",
    "attention/key_norm": "attn/_key_norm/scale",
}


class Tensor(NamedTuple):
    """One official tensor, or the one of that name in every layer.

    labels: ours that it holds; more than one are stacked along its first axis.
    axes:   the order of our axes in it; `head_groups` and `query_heads` are one there.
    """

    labels: tuple[str, ...]
    axes: tuple[str, ...]


def to_official(
    params: Params, spec: Spec, *, transpose_gating_einsum: bool = True
) -> dict[str, Any]:
    """The nested dict that `gemma.gm.nn` models take as `params`.

    Args:
      transpose_gating_einsum: as in the official model's config.
    """
    return jax.tree.map(
        jnp.asarray, official_arrays(params, spec, transpose_gating_einsum)
    )


def official_arrays(params: Params, spec: Spec, transpose: bool) -> dict[str, Any]:
    """`to_official` on the host: numpy arrays, views where they can be."""
    flat = {path: _leave(params, label, spec) for label, path in TOP.items()}
    for path, (labels, order) in table(spec, transpose).items():
        parts = [_leave(params, label, spec, order) for label in labels]
        stack = np.stack(parts, 1) if len(parts) > 1 else parts[0]
        for i, value in enumerate(stack):
            flat[f"layer_{i}/{path}"] = value
    return nested(flat)


def from_official(
    tree: Mapping[str, Any], spec: Spec, *, transpose_gating_einsum: bool = True
) -> Params:
    """Our parameters from the `params` of an official model without vision.

    Args:
      transpose_gating_einsum: as in the official model's config.

    Raises:
      UserError: a tensor is missing, unknown or of another shape than `spec` says.
    """
    flat = dict(leaves(tree))
    found = {path: np.shape(value) for path, value in flat.items()}
    check(found, official_shapes(spec, transpose_gating_einsum), spec)
    plain = {label: np.asarray(flat[path]) for label, path in TOP.items()}
    plain = {label: enter(value, label, spec) for label, value in plain.items()}
    for path, (labels, order) in table(spec, transpose_gating_einsum).items():
        stack = np.stack([flat[f"layer_{i}/{path}"] for i in range(spec.layers)])
        parts = np.unstack(stack, axis=1) if len(labels) > 1 else (stack,)
        for label, part in zip(labels, parts, strict=True):
            plain[label] = enter(part, label, spec, order)
    return {k: name_axes(k, jnp.asarray(value), spec) for k, value in plain.items()}


def table(spec: Spec, transpose: bool) -> dict[str, Tensor]:
    """The tensors of every official layer, by their path inside it.

    Raises:
      UserError: the spec is not of a Gemma.
    """
    if is_llama(spec):
        raise UserError(
            f"{spec.name}, a Llama, in the official layout",
            "a Gemma: the package `gemma` has no other models",
            "export it as a Hugging Face directory",
        )
    query, keys = ("attention/query",), ("attention/key", "attention/value")
    head = ("head_groups", "query_heads")
    attend = (*head, "embedding", "projection")
    if spec.query_heads == 1:
        attention = {"attn/qkv_einsum/w": Tensor(query + keys, attend)}
    else:
        attention = {
            "attn/q_einsum/w": Tensor(query, attend),
            "attn/kv_einsum/w": Tensor(keys, attend),
        }
    output = Tensor(("attention/output",), (*head, "projection", "embedding"))
    gating = ("neurons", "embedding") if transpose else ("embedding", "neurons")
    norms = {
        path: Tensor((label,), ("embedding", "projection"))
        for label, path in _NORMS.items()
        if label in shapes(spec)
    }
    return {
        **attention,
        "attn/attn_vec_einsum/w": output,
        "mlp/gating_einsum": Tensor(("mlp/gate", "mlp/up"), gating),
        "mlp/linear": Tensor(("mlp/down",), ("neurons", "embedding")),
        **norms,
    }


def _axes(label: str, spec: Spec, order: tuple[str, ...] | None) -> dict[str, int]:
    """The axes of `label` with their sizes, those inside a layer in the given order."""
    shape = shapes(spec)[label]
    names = shape if order is None else ("layer", *order)
    return {axis: shape[axis] for axis in names if axis in shape}


def _merged(axes: dict[str, int]) -> dict[str, int]:
    """`axes`, where the heads of all groups are one axis."""
    merged = dict(axes)
    if "query_heads" in merged:  # always behind head_groups
        merged["head_groups"] *= merged.pop("query_heads")
    return merged


def _leave(
    params: Params, label: str, spec: Spec, order: tuple[str, ...] | None = None
) -> np.ndarray:
    """One of our parameters as a plain array with its axes in an official order."""
    axes = _axes(label, spec, order)
    own = list(shapes(spec)[label])
    plain = fetch(params[label].unwrap(*own), exact=True)
    plain = plain.transpose([own.index(axis) for axis in axes]).reshape(
        tuple(_merged(axes).values())
    )
    return plain - 1 if label.endswith("norm") else plain


def enter(
    value: Any, label: str, spec: Spec, order: tuple[str, ...] | None = None
) -> Any:
    """The inverse of `_leave`, for an array of numpy's or of jax's, also in `jit`."""
    axes = _axes(label, spec, order)
    official = list(axes)
    plain = value.reshape(tuple(axes.values()))
    plain = plain.transpose([official.index(axis) for axis in shapes(spec)[label]])
    return plain + 1 if label.endswith("norm") else plain


def official_shapes(spec: Spec, transpose: bool) -> dict[str, tuple[int, ...]]:
    """The shape of every official tensor by its path."""
    axes = official_axes(spec, transpose)
    return {path: tuple(sizes.values()) for path, sizes in axes.items()}


def official_axes(spec: Spec, transpose: bool) -> dict[str, dict[str, int]]:
    """The axes of every official tensor, with their sizes, by its path.

    Heads of all groups are one axis, called `head_groups`; our labels that are stacked
    are along `labels`.
    """
    out = {path: _merged(_axes(label, spec, None)) for label, path in TOP.items()}
    for path, (labels, order) in table(spec, transpose).items():
        inside = _merged(_axes(labels[0], spec, order))
        del inside["layer"]
        if len(labels) > 1:
            inside = {"labels": len(labels), **inside}
        out |= {f"layer_{i}/{path}": inside for i in range(spec.layers)}
    return out


def check(found: Mapping[str, tuple], wanted: Mapping[str, tuple], spec: Spec) -> None:
    """Raises UserError unless exactly the wanted shapes were found."""
    what = f"the text parameters of {spec.name} as gemma.gm.nn names them"
    for path in wanted:
        if path not in found:
            raise UserError(
                f"official parameters without {path!r}",
                what,
                "check that they are this model's, with no 'params' around them",
            )
    for path in found:
        if path not in wanted:
            raise UserError(
                f"official parameters with an unknown {path!r}",
                what,
                "check that they are this model's, and drop what is not text",
            )
    for path, shape in wanted.items():
        if found[path] != shape:
            raise UserError(
                f"official tensor {path!r} of shape {found[path]}",
                f"{shape} in {spec.name}",
                "check the model's size and transpose_gating_einsum",
            )


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of a nested dict, names joined by slashes."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", value


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `leaves`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    return tree
