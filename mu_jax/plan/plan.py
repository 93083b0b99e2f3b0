"""The plan: every program compiled for a topology, and what that says of the run."""

import dataclasses
import re
from collections.abc import Hashable, Iterator
from typing import Any

from mu_jax.devices.sharding import Layout
from mu_jax.errors import UserError
from mu_jax.plan import costs
from mu_jax.plan.chips import GIB, Topology, quiet
from mu_jax.plan.programs import Program, programs, spec_of
from mu_jax.runs.config import Config
from mu_jax.types import Progress, silent

EFFORT = 9
"""The compiler's O0: ten times faster than its default, peaks within 3 %, and the same
collectives."""


Compiled = tuple[int, dict[str, int] | None]
"""Peak in bytes, and collectives; None where the compiler found no room."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one program needs of one device, and of the clock.

    Attributes:
      peak_bytes: the most that is in memory at a time: `memory` added up. Where what a
        program takes in does not fit already, that alone; nothing is compiled then.
        Where the compiler refuses without a number that is understood, what there is.
      memory: what that is: weights, masters, optimiser, inputs, what else is there,
        and temporaries (gradients, activations, logits, copies).
      flops: a call, of all devices together, by arithmetic.
      collectives: in the compiled program, by kind; none where it does not fit.
      seconds: a call, at least; `bound` is what bounds it.
      calls: in the whole run.
    """

    name: str
    fits: bool
    peak_bytes: int
    hbm_bytes: int
    memory: dict[str, int]
    flops: float
    collectives: dict[str, int]
    seconds: float
    bound: str
    calls: int
    chip_hours: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages on one topology."""

    config: Config
    topology: Topology
    stages: tuple[Stage, ...]

    @property
    def layout(self) -> Layout:
        return self.config.mesh.layout(self.topology.devices)

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    @property
    def chip_hours(self) -> float:
        return sum(stage.chip_hours for stage in self.stages)


def plan(
    config: Config, topology: Topology, only: str = "", progress: Progress = silent
) -> Plan:
    """Compiles every program whose name begins with `only`.

    Raises:
      UserError: there is none.
    """
    every = list(programs(config, topology))
    chosen = [p for p in every if p.name.startswith(only)]
    if not chosen:
        raise UserError(
            f"no stage begins with {only!r}",
            f"one of {', '.join(p.name for p in every)}",
        )
    return Plan(config, topology, tuple(_stages(config, topology, chosen, progress)))


def _stages(
    config: Config, topology: Topology, chosen: list[Program], progress: Progress
) -> Iterator[Stage]:
    seen: dict[Hashable, Compiled] = {}
    for i, program in enumerate(chosen):
        progress("compiling for the TPU", i, len(chosen))
        held = sum(program.holds.values()) + sum(program.beside.values())
        if program.alike not in seen:
            hopeless = held > topology.chip.hbm  # before the program even starts
            found = (held, None) if hopeless else _compiled(program, topology.chip.hbm)
            seen[program.alike] = found
        yield _stage(config, topology, program, seen[program.alike])
    progress("compiling for the TPU", len(chosen), len(chosen))


def _stage(
    config: Config, topology: Topology, program: Program, compiled: Compiled
) -> Stage:
    chip, beside = topology.chip, sum(program.beside.values())
    held = sum(program.holds.values())
    peak, counted = compiled
    peak = max(peak, held) + beside
    layout = config.mesh.layout(topology.devices)
    width = 2 if config.dtype == "bfloat16" else 4
    times = costs.seconds(
        program.work,
        spec_of(config.model),
        width,
        layout.mesh,
        chip,
        config.products,
    )
    bound = max(times, key=lambda name: times[name])
    return Stage(
        name=program.name,
        fits=counted is not None and peak <= chip.hbm,
        peak_bytes=peak,
        hbm_bytes=chip.hbm,
        memory={
            **program.holds,
            **program.beside,
            "temporaries": peak - beside - held,
        },
        flops=program.work.flops,
        collectives=counted or {},
        seconds=times[bound],
        bound=bound,
        calls=program.calls,
        chip_hours=times[bound] * program.calls * topology.chips / 3600,
    )


def _compiled(program: Program, hbm: int) -> Compiled:
    try:
        with quiet():
            compiled = program.lower().compile(
                compiler_options={"optimization_level": EFFORT}
            )
    except Exception as error:  # of jaxlib, whose place has moved before
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        held = sum(program.holds.values())
        return max(wanted(str(error), held), hbm), None
    memory: Any = compiled.memory_analysis()
    return memory.peak_memory_in_bytes, costs.collectives(compiled.as_text())


_ALL = re.compile(r"(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])")
"""All that is in memory at once, as libtpu 0.0.41 and 0.0.48 say it (the "temporaries"
of the latter count what goes in and comes out too)."""

_ONE = re.compile(r"Allocation \(size=(\d+)\)")
"""A single array, larger than all there is."""


def wanted(message: str, held: int) -> int:
    """Bytes that a program would have needed, from the compiler's complaint.

    `held` is what goes in; the same comes back where the complaint has no number.
    """
    if found := _ALL.search(message):
        units = {"K": 1 << 10, "M": 1 << 20, "G": GIB, "T": 1 << 40}
        return max(held, round(float(found[1]) * units[found[2]]))
    if found := _ONE.search(message):
        return held + int(found[1])
    return held
