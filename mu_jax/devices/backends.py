"""What XLA's backends say about nothing, kept from people; their errors are not.

libtpu, which `mu plan` compiles with, is asked by JAX for devices as soon as anything
runs. Where there is no TPU it looks for its neighbours in a pod, and tells with a trace
that it found none; two variables of the environment say that there are none.

To XLA on a CPU a compiled program that the cache gives back is an error which "could
lead to SIGILL", twice each: it wrote down two hints for its own tuning
(prefer-no-gather, prefer-no-scatter) as if they were features of the processor, and
then misses them. JAX looks programs up by the processor's features too, so that none of
another kind is ever loaded.
"""

import contextlib
import functools
import os
from pathlib import Path

GOOGLE = "0x1ae0"
"""The PCI vendor of TPU chips; JAX looks for them in the same way."""
_FATAL = 3


def tpu(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether this machine has a TPU."""
    return any(v.read_text().strip() == GOOGLE for v in devices.glob("*/vendor"))


def without_pod() -> None:
    """Tells libtpu, if there is no TPU here, that there is no pod around it either.

    What the environment says already stays. JAX itself sets such variables when it is
    imported, from the same look at the machine's devices.
    """
    if not tpu():
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")


def load_programs_quietly() -> None:
    """Has XLA say nothing while it loads a compiled program from the cache.

    What goes wrong then is raised, and JAX compiles anew.
    """
    with contextlib.suppress(ImportError, AttributeError):  # not JAX's public part
        from jax._src import compilation_cache
        from jax._src.lib import utils  # pyright: ignore[reportPrivateImportUsage]

        set_level = utils.absl_set_min_log_level
        load = compilation_cache.get_executable_and_time
        if not hasattr(load, "__wrapped__"):

            @functools.wraps(load)
            def quietly(*args, **settings):
                set_level(_FATAL)
                try:
                    return load(*args, **settings)
                finally:
                    set_level(int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 0))

            compilation_cache.get_executable_and_time = quietly
