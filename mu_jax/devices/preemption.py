"""SIGTERM: the machine is about to be taken away, and a run has seconds to save.

The signal sets a flag and nothing else. Work asks for it at safe points, where all
processes of a pod ask together: one of them having been told is enough for all to stop.
"""

import contextlib
import signal
from collections.abc import Iterator

from mu_jax.devices.distributed import agree

STATUS = 128 + signal.SIGTERM
"""The exit status of a run that was stopped: what a shell reports for SIGTERM."""


class Preempted(Exception):
    """SIGTERM came; all that there was to save is saved."""


class Preemption:
    """Whether SIGTERM has come, to this process or to any other."""

    def __init__(self):
        self._told = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, SIGTERM is noted rather than obeyed at once.

        To be entered after `distributed.start`, which sets a handler of JAX's own.
        """
        before = signal.signal(signal.SIGTERM, self.note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    def came(self) -> bool:
        return agree(self._told)

    def check(self) -> None:
        """A safe point. Raises Preempted if SIGTERM has come."""
        if self.came():
            raise Preempted

    def note(self, *_) -> None:
        """SIGTERM has come, or what is as good as that."""
        self._told = True
