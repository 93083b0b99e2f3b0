"""The state of a running edit on disk, from which it goes on after an interruption.

    edits/NAME/state/STEP/state    orbax: edited tensors and the optimiser's state
    edits/NAME/state/STEP/record   JSON: the edit's fingerprint, and its history so far

STEP is how many steps have been made; a step is a function of its number, so that is
the position in the data too. Orbax writes beside the place and renames, and the one
before is deleted afterwards: killed at any moment, the newest folder is whole.
"""

import contextlib
import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mu_jax import inputs
from mu_jax.checkpoints import damage
from mu_jax.devices import distributed
from mu_jax.devices.preemption import Preempted, Preemption
from mu_jax.edits.editor import State
from mu_jax.errors import UserError

History = list[dict[str, float]]

_STEP = re.compile(r"[0-9]{1,9}")
_UNFINISHED = ".orbax-checkpoint-tmp"
_ANEW = "delete it, and the edit starts anew"


class SnapshotFolder:
    """Snapshots (`edits.editor.Snapshots`) of one edit, in the folder `path`.

    Args:
      fingerprint: of the edit's settings; snapshots made with others do not count.
      every: steps between two snapshots: what is lost at most.
      preemption: asked after each step; if it came, the state is saved and the edit
        stopped.
      say: told what a person should know.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        every: int,
        preemption: Preemption,
        say: Callable[[str], None],
    ):
        self.path, self.fingerprint, self.every = path, fingerprint, every
        self.preemption, self.say = preemption, say

    def restore(self, like: State) -> tuple[State, History] | None:
        """The newest snapshot and the history up to it, if there is one.

        Raises:
          UserError: a folder that is damaged, or not one of snapshots of this edit.
        """
        step = int(distributed.first(self._newest))
        if not step:
            return None
        with self._readable():
            record = self._restore(step, record=ocp.args.JsonRestore())
            if record["fingerprint"] != self.fingerprint:
                self.say(f"  {self.path} was made with other settings: starting anew")
                self.clear()
                return None
            history = _checked(record["history"], step)
            target = _target(like)
            self._compare(step, target)
            arrays = self._restore(step, state=ocp.args.StandardRestore(target))
        self.say(f"  going on behind step {step}")
        return _unflattened(like, arrays), history

    def save(self, state: State, history: History) -> None:
        """Keeps the state if it is due, or if it is the last one before a stop.

        Raises:
          Preempted: SIGTERM came; the state is saved.
        """
        stopping = self.preemption.came()
        if stopping or len(history) % self.every == 0:
            record = {"fingerprint": self.fingerprint, "history": history}
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(_flat(state)),
                record=ocp.args.JsonSave(record),
            )
            with damage.quiet():  # a full disk is told once, by what is raised
                self._manager.save(len(history), args=args)
        if stopping:
            raise Preempted

    def clear(self) -> None:
        """Deletes all snapshots."""
        self.close()
        distributed.first(lambda: shutil.rmtree(self.path, ignore_errors=True))

    def close(self) -> None:
        if "_manager" in self.__dict__:
            self._manager.close()
            del self._manager

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.path.absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
            },
        )

    def _newest(self) -> bytes:
        """The number of the newest snapshot; 0 without one.

        Takes away what is left of older ones, whose deletion may have been cut short.
        """
        if not self.path.exists():
            return b"0"
        with self._readable():
            inputs.tree(self.path)
            names = [entry.name for entry in self.path.iterdir()]
        for name in names:
            if not _STEP.fullmatch(name) and _UNFINISHED not in name:
                raise UserError(
                    f"{self.path} with {name!r} in it",
                    "a folder of nothing but snapshots of an edit",
                    _ANEW,
                )
        steps = sorted(int(name) for name in names if _STEP.fullmatch(name))
        for old in steps[:-1]:
            shutil.rmtree(self.path / str(old))
        return str(max(steps, default=0)).encode()

    def _restore(self, step: int, **item) -> Any:
        found = self._manager.restore(step, args=ocp.args.Composite(**item))
        (name,) = item
        return found[name]

    def _compare(self, step: int, target: dict[str, jax.ShapeDtypeStruct]) -> None:
        found = self._manager.item_metadata(step)["state"]
        got = {name: tuple(array.shape) for name, array in found.items()}
        want = {name: array.shape for name, array in target.items()}
        wrong = [n for n in {**want, **got} if got.get(n) != want.get(n)]
        if wrong:
            raise UserError(
                f"{self.path} holds {wrong[0]} {got.get(wrong[0], 'not at all')}",
                f"{want.get(wrong[0], 'nothing of that name')}",
                _ANEW,
            )

    def _readable(self) -> contextlib.AbstractContextManager[None]:
        """Turns whatever a damaged or foreign folder raises into one line."""
        expected = "snapshots of an edit as mu wrote them"
        return damage.readable(self.path, expected, _ANEW)


def _flat(state: Any) -> dict[str, Any]:
    """{where it stands in the tree: array}"""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _target(like: State) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding)
        for name, a in _flat(like).items()
    }


def _unflattened(like: State, arrays: dict[str, jax.Array]) -> State:
    """The arrays in place; bound to a device (committed) only if those of `like` are.

    Otherwise the same step would be compiled once more for them.
    """
    leaves = [
        arrays[name] if leaf.committed else jnp.asarray(np.asarray(arrays[name]))
        for name, leaf in _flat(like).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _checked(history: Any, step: int) -> History:
    """A history of so many steps, each a record of numbers."""
    numbers = [record["step"] for record in history]
    values = [value for record in history for value in record.values()]
    if numbers != list(range(step)) or not all(
        isinstance(value, int | float) for value in values
    ):
        raise ValueError("no history of these steps")
    return history
