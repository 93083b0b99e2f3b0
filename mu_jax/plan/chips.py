"""TPU chips, and topologies of them as the compiler sees them: no TPU is needed."""

import contextlib
import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any

from mu_jax.errors import UserError

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip's published figures.

    Attributes:
      name: as topologies spell it, `v5e:4x4`.
      hbm: bytes that a program may use: the compiler keeps a quarter of a GiB.
      flops: of bfloat16 matrix products, a second.
      bandwidth: of the memory, bytes a second.
      links: of all links to other chips together, bytes a second.
      shapes: topologies by growing number of chips; of flat ones all there are.
      pod: how many chips are connected, at most.
    """

    name: str
    hbm: int
    flops: float
    bandwidth: float
    links: float
    shapes: tuple[str, ...]
    pod: int

    def has(self, shape: str) -> bool:
        """Whether chips can be had in this shape.

        The compiler knows others, and ends the process over some of them.
        """
        if self.shapes is _FLAT:
            return shape in self.shapes
        sides = shape.split("x")
        known = len(sides) == 3 and all(s.isdecimal() and s.isascii() for s in sides)
        return known and 0 < math.prod(map(int, sides)) <= self.pod


_FLAT = ("1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")

CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", int(31.75 * GIB), 275e12, 1228e9, 300e9, _CUBIC, 4096),
        Chip("v5e", int(15.75 * GIB), 197e12, 819e9, 200e9, _FLAT, 256),
        Chip("v5p", int(95.75 * GIB), 459e12, 2765e9, 600e9, _CUBIC, 6144),
        Chip("v6e", int(31.25 * GIB), 918e12, 1640e9, 448e9, _FLAT, 256),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, and the compiler's stand-ins for them."""

    name: str
    chip: Chip
    devices: Sequence[Any]

    @property
    def chips(self) -> int:
        return len(self.devices)


def topology(name: str) -> Topology:
    """The topology called `v5e:4x4`; `v6e:1` is a single chip.

    Raises:
      UserError: an unknown name, or no TPU compiler.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not shape:
        raise UserError(
            f"the topology {name!r}",
            f"a chip ({', '.join(CHIPS)}) and a shape",
            "for example: v5e:4x4, v6e:1",
        )
    chip = CHIPS[kind]
    single = shape in ("1", "1x1", "1x1x1")
    whole = chip.shapes[1] if single else shape
    if not chip.has(whole):
        raise _unknown(name, chip)
    devices = _devices(f"{kind}:{whole}", name)
    return Topology(name, chip, devices[:1] if single else devices)


def _devices(whole: str, name: str) -> list[Any]:
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "the TPU compiler is not installed",
            "the package libtpu",
            "pip install 'mu_jax[plan]'",
        )
    prepare()
    options = {"chip_config_name": "megacore"} if whole.startswith("v4") else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=whole, **options
        )
    except Exception as error:  # jax tells of it by several types
        chip = CHIPS[whole.partition(":")[0]]
        raise _unknown(name, chip, f" ({str(error).splitlines()[0][:120]})") from None
    return list(found.devices)


def _unknown(name: str, chip: Chip, why: str = "") -> UserError:
    all_or_some = "one of" if chip.shapes is _FLAT else "one such as"
    return UserError(
        f"the topology {name!r}{why}",
        f"{all_or_some} {', '.join(chip.shapes)}",
        "choose a shape that exists",
    )


def prepare() -> None:
    """Sets what the TPU compiler reads from the environment where there is no TPU."""
    for name, value in (
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_LOG_DIR", "disabled"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_WORKER_ID", "0"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
    ):
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def quiet():
    """Keeps what the compiler writes to the process's own stderr from the reader."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
