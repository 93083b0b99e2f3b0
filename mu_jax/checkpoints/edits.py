"""An edit on disk: only the tensors it changed, through orbax.

The folder is an orbax checkpoint of {label: [layer, ...]}; which layers of which
tensors these are stands in the run's selection. Orbax writes beside the place and
renames, so the folder exists only when it is whole.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from mu_jax import inputs
from mu_jax.checkpoints import damage
from mu_jax.devices.sharding import Layout
from mu_jax.errors import UserError
from mu_jax.model.params import Params, name_axes, shapes
from mu_jax.model.specs import Spec
from mu_jax.types import Selection

_AGAIN = "edit again"


def save(path: Path, params: Params) -> None:
    """Writes edited tensors to the folder `path`, in place of what was there."""
    arrays = {
        label: array.unwrap(*array.named_shape) for label, array in params.items()
    }
    with damage.quiet(), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), arrays, force=True)


def restore(
    path: Path, selection: Selection, spec: Spec, layout: Layout | None = None
) -> Params:
    """The tensors of a selection, float32, placed as `layout` says.

    Raises:
      UserError: no checkpoint, or one of other tensors or shapes.
    """
    named = shapes(spec)
    unknown = [label for label, _ in selection.tensors if label not in named]
    if unknown:
        raise UserError(
            f"the selection {selection.name!r} names {unknown[0]!r}",
            f"tensors of {spec.name}",
            "select again",
        )
    wanted = {
        label: {**named[label], "layer": len(layers)}
        for label, layers in selection.tensors
    }
    one = SingleDeviceSharding(jax.devices()[0])  # wherever they were made
    target = {
        label: jax.ShapeDtypeStruct(
            tuple(shape.values()),
            np.float32,
            sharding=layout.weights(shape) if layout else one,
        )
        for label, shape in wanted.items()
    }
    readable = damage.readable(path, "an edit's tensors as orbax wrote them", _AGAIN)
    inputs.tree(path)  # nothing in it that never ends
    with readable, ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path.absolute())
        found = getattr(stored, "item_metadata", stored)
        got = {label: tuple(array.shape) for label, array in found.items()}
        want = {label: array.shape for label, array in target.items()}
        if got != want:
            raise UserError(
                f"{path} holds {_brief(got)}",
                _brief(want),
                f"the edit is of another selection or model: {_AGAIN}",
            )
        arrays = checkpointer.restore(path.absolute(), target)
    if layout is None:  # bound to no device, as a loaded model is: programs are shared
        arrays = {label: jnp.asarray(np.asarray(a)) for label, a in arrays.items()}
    return {label: name_axes(label, array, spec) for label, array in arrays.items()}


def _brief(tensors: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(
        f"{label} {list(shape)}" for label, shape in sorted(tensors.items())
    )
