"""Second moments of keys on disk: one safetensors file a layer.

    LAYER-DIGEST.safetensors    the matrix `moment` in float32; its metadata say of
                                which model, layer and text, and its bytes' digest

A file is written beside its place and renamed. One that is truncated, damaged, or of
something else counts as absent; nothing in it is ever executed.
"""

import contextlib
import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mu_jax import inputs
from mu_jax.devices import distributed
from mu_jax.edits.covariance import Moment

_NAME = "moment"
_ABANDONED = 3600.0
"""Seconds after which a half-written file is nobody's any more."""


@dataclasses.dataclass(frozen=True)
class MomentFolder:
    """Second moments (`edits.covariance.Moments`) of one model, in the folder `path`.

    `model` says which model it is: the same text for the same weights only, such as a
    digest of its checkpoint. Several models may share a folder. On several processes
    the first one writes, and all read: the folder has to be one that they share.
    """

    path: Path
    model: str

    def get(self, layer: int, of: str) -> Moment | None:
        """The one kept of a layer, over the text that `of` names; None without one."""
        try:
            inputs.regular(self._file(layer, of))
            with safe_open(self._file(layer, of), "numpy") as file:
                moment, said = file.get_tensor(_NAME), file.metadata() or {}
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        square = moment.ndim == 2 and moment.shape[0] == moment.shape[1]
        right = said == self._metadata(layer, of, moment)
        return moment if right and square and moment.dtype == np.float32 else None

    def put(self, layer: int, of: str, moment: Moment) -> None:
        """Keeps it, in place of what was kept of that layer and text."""

        def write():
            self.path.mkdir(parents=True, exist_ok=True)
            whole = np.ascontiguousarray(moment, np.float32)
            handle, partial = tempfile.mkstemp(".partial", dir=self.path)
            os.close(handle)
            try:
                said = self._metadata(layer, of, whole)
                save_file({_NAME: whole}, partial, said)
                Path(partial).replace(self._file(layer, of))
            finally:
                Path(partial).unlink(missing_ok=True)
            for left in self.path.glob("tmp*.partial"):
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > _ABANDONED:
                        left.unlink()  # of a writer that was killed

        distributed.first(write)

    def _file(self, layer: int, of: str) -> Path:
        digest = xxhash.xxh3_64_hexdigest(f"{self.model}\n{of}".encode())
        return self.path / f"{layer:03}-{digest}.safetensors"

    def _metadata(self, layer: int, of: str, moment: np.ndarray) -> dict[str, str]:
        digest = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(moment).tobytes())
        return {
            "model": self.model,
            "layer": str(layer),
            "text": of,
            "digest": digest,
        }
