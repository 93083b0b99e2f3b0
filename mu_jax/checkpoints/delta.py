"""A delta: the tensors that an edit changed, as they were in the base and as they are.

    apply(base, delta)     the edited model
    revert(edited, delta)  the base again, bit for bit
    stack(a, b)            one delta for a, then b
    diff(a, b)             how two of them compare, tensor by tensor

A base is known by its tensors: a delta applies where each tensor that it changes has
exactly the values it had, in whatever floating format holds them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.model.model import Model
from mu_jax.model.params import Params, name_axes
from mu_jax.selectors.selections import Matrix
from mu_jax.types import Edit, Selection


class Change(NamedTuple):
    """One tensor of one layer, axes in our storage order.

    old: in the base's format.
    new: float32, as it was trained; a model holds it rounded to its own format.
    """

    old: np.ndarray
    new: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Delta:
    """What changed in which base, and why.

    Attributes:
      spec: the name of the base's spec.
      name: of the edit, for people.
      changes: by (label, layer).
      provenance: how it was made, JSON-serialisable.
    """

    spec: str
    name: str
    changes: Mapping[Matrix, Change]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def selection(self) -> Selection:
        """The tensors it changes."""
        layers: dict[str, list[int]] = {}
        for label, layer in sorted(self.changes):
            layers.setdefault(label, []).append(layer)
        tensors = tuple((label, tuple(found)) for label, found in layers.items())
        n_params = sum(change.new.size for change in self.changes.values())
        return Selection(self.name, tensors, n_params, "delta")


class Difference(NamedTuple):
    """One tensor in two deltas; None where one of them does not change it.

    first, second: the size of each change, relative to the base (L2 norms).
    apart:         the distance between the two results, relative to the base.
    cosine:        of the angle between the two changes; None too where one is zero.
    """

    matrix: Matrix
    first: float | None
    second: float | None
    apart: float | None
    cosine: float | None


def make(
    model: Model, edit: Edit, provenance: Mapping[str, Any] | None = None
) -> Delta:
    """The delta of an edit of `model`, which is the unedited one."""
    old = _held(model, edit.selection)
    new = _matrices(dict(edit.params), edit.selection)
    changes = {m: Change(old[m], new[m].astype(np.float32)) for m in old}
    return Delta(model.spec.name, edit.selection.name, changes, provenance or {})


def apply(model: Model, delta: Delta) -> Model:
    """`model` with the new tensors.

    Raises:
      UserError: a tensor that the delta changes has other values than its base had.
    """
    before = {matrix: change.old for matrix, change in delta.changes.items()}
    after = {matrix: change.new for matrix, change in delta.changes.items()}
    return _exchanged(
        model, delta, before, after, "apply it to the model that it was made from"
    )


def revert(model: Model, delta: Delta) -> Model:
    """`model`, to which `delta` was applied, as it was before, bit for bit.

    Raises:
      UserError: a tensor that the delta changes does not have its new values.
    """
    dtypes = {label: model.params[label].dtype for label in _labels(model, delta)}
    before = {m: c.new.astype(dtypes[m[0]]) for m, c in delta.changes.items()}
    after = {matrix: change.old for matrix, change in delta.changes.items()}
    return _exchanged(
        model, delta, before, after, "revert a model that it was the last applied to"
    )


def stack(first: Delta, second: Delta) -> Delta:
    """One delta that does what `first` and then `second` do.

    Raises:
      UserError: of different specs, or both change a tensor and `second` was not made
        on top of `first`.
    """
    if first.spec != second.spec:
        raise UserError(
            f"deltas of {first.spec} and of {second.spec}", "two of one model"
        )
    changes = {**first.changes, **second.changes}
    for matrix in first.changes.keys() & second.changes.keys():
        below, above = first.changes[matrix], second.changes[matrix]
        if not _same(below.new.astype(above.old.dtype), above.old):
            raise UserError(
                f"{first.name!r} and {second.name!r} both change {spell(matrix)}",
                f"{second.name!r} made on top of {first.name!r}, or other tensors",
                "make the second edit on the model with the first one applied",
            )
        changes[matrix] = Change(below.old, above.new)
    provenance = {"stacked": [dict(d.provenance) for d in (first, second)]}
    name = f"{first.name}+{second.name}"
    return Delta(first.spec, name, dict(sorted(changes.items())), provenance)


def diff(first: Delta, second: Delta) -> list[Difference]:
    """Every tensor that either changes, in order.

    Raises:
      UserError: they give one tensor different shapes.
    """
    found = []
    for matrix in sorted(first.changes.keys() | second.changes.keys()):
        a, b = first.changes.get(matrix), second.changes.get(matrix)
        apart = cosine = None
        if a and b:
            if a.new.shape != b.new.shape:
                raise UserError(
                    f"{spell(matrix)} of shapes {a.new.shape} and {b.new.shape}",
                    "two deltas of one model",
                )
            apart = _relative(b.new - a.new, a.old)
            cosine = _cosine(_moved(a), _moved(b))
        sizes = [_relative(_moved(c), c.old) if c else None for c in (a, b)]
        found.append(Difference(matrix, sizes[0], sizes[1], apart, cosine))
    return found


def spell(matrix: Matrix) -> str:
    """A tensor of a layer, for people."""
    return f"{matrix[0]} of layer {matrix[1]}"


def _exchanged(
    model: Model,
    delta: Delta,
    before: Mapping[Matrix, np.ndarray],
    after: Mapping[Matrix, np.ndarray],
    remedy: str,
) -> Model:
    """`model` with `after` where exactly `before` is."""
    _labels(model, delta)
    for matrix, held in _held(model, delta.selection).items():
        if not _same(held, before[matrix]):
            raise UserError(
                f"{model.name} has other values in {spell(matrix)}",
                f"those that the delta {delta.name!r} found or left there",
                remedy,
            )
    params = {
        label: name_axes(
            label,
            np.stack([after[label, i].astype(np.float32) for i in layers]),
            model.spec,
        )
        for label, layers in delta.selection.tensors
    }
    return model.update(Edit(delta.selection, params, []))


def _labels(model: Model, delta: Delta) -> list[str]:
    """The labels that a delta changes, once `model` is known to have these tensors."""
    for (label, layer), change in delta.changes.items():
        found = model.params.get(label)
        shape = tuple(found.named_shape.values()) if found is not None else ()
        if shape[1:] != change.new.shape or not shape or layer >= shape[0]:
            raise UserError(
                f"{model.name} has no {spell((label, layer))} of shape"
                f" {list(change.new.shape)}",
                f"a model like {delta.spec}",
                "apply the delta to the model that it was made from",
            )
    return [label for label, _ in delta.selection.tensors]


def _held(model: Model, selection: Selection) -> dict[Matrix, np.ndarray]:
    """The selected tensors of a model, one by one, on the host."""
    return _matrices(model.selected(selection), selection)


def _matrices(params: Params, selection: Selection) -> dict[Matrix, np.ndarray]:
    out = {}
    for label, layers in selection.tensors:
        stacked = fetch(params[label].unwrap(*params[label].named_shape), exact=True)
        out |= {(label, i): stacked[n] for n, i in enumerate(layers)}
    return out


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same numbers; float32 holds all smaller formats."""
    return a.astype(np.float32).tobytes() == b.astype(np.float32).tobytes()


def _moved(change: Change) -> np.ndarray:
    return change.new - change.old.astype(np.float32)


def _relative(part: np.ndarray, whole: np.ndarray) -> float:
    norm = _norm(whole)
    return _norm(part) / norm if norm else float("inf")


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    norms = _norm(a) * _norm(b)
    dot = np.dot(a.ravel().astype(np.float64), b.ravel().astype(np.float64))
    return float(dot / norms) if norms else None


def _norm(array: np.ndarray) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))
