"""The store through which the processes of a run find one another, in its own process.

    python -P coordinator.py ADDRESS PROCESSES

JAX would keep it inside process 0. Were that killed, all others would abort with a
stack trace before they could say why; so the store outlives process 0 by as long as
they need. It ends with its standard input, which process 0 holds open: at once where
that says so.
"""

import sys
import time

from jaxlib import _jax

READY, DONE = "ready\n", "done"
LINGER = 40
"""Seconds in which the others notice that process 0 is gone, and why."""


def main(address: str, processes: str) -> None:
    service = _jax.get_distributed_runtime_service(address, int(processes))
    sys.stdout.write(READY)
    sys.stdout.flush()
    if sys.stdin.read() != DONE:
        time.sleep(LINGER)
    service.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
