"""The smallest topology that a run fits, and the settings with which it does."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax.numpy as jnp

from mu_jax.devices.sharding import Mesh
from mu_jax.errors import UserError
from mu_jax.plan import costs
from mu_jax.plan.chips import CHIPS, Topology, topology
from mu_jax.plan.plan import Plan, plan
from mu_jax.plan.programs import programs, spec_of
from mu_jax.runs.config import Config
from mu_jax.types import Progress, silent

PARTS = (1, 2, 4, 8, 16)


def smallest(
    config: Config, kinds: tuple[str, ...], only: str = "", progress: Progress = silent
) -> Plan:
    """The plan with the fewest chips that fits; of equals the fastest by arithmetic.

    Raises:
      UserError: nothing does.
    """
    for n in sorted({_chips(shape) for kind in kinds for shape in CHIPS[kind].shapes}):
        for kind in kinds:
            for shape in CHIPS[kind].shapes:
                if _chips(shape) == n:
                    found = _on(config, topology(f"{kind}:{shape}"), only, progress)
                    if found:
                        return found
    raise UserError(
        f"{config.name} fits no topology of {', '.join(kinds)}",
        "one of those searched",
        "select less, or plan with smaller batches",
    )


def overrides(found: Plan) -> str:
    """What to add to a command line for this plan's settings."""
    mesh, edit = found.config.mesh, found.config.edit
    said = [f"--mesh.{axis} {n}" for axis, n in dataclasses.asdict(mesh).items()]
    said.append(f"--edit.accumulate {edit.accumulate}")
    said.append("--edit.remat" if edit.remat else "--edit.no-remat")
    return " ".join(said)


def _on(config: Config, where: Topology, only: str, progress: Progress) -> Plan | None:
    """The fastest candidate that fits a topology; two compilations at most a mesh."""
    for mesh in _meshes(where.chips):
        tried = [
            candidate
            for candidate in _candidates(config, mesh)
            if _hopeful(candidate, where, only)
        ]
        for candidate in sorted(tried, key=lambda c: _time(c, where, only)):
            found = plan(candidate, where, only, progress)
            if found.fits:
                return found
            if _at_most(found, candidate):
                break
    return None


def _meshes(chips: int) -> Iterator[Mesh]:
    """Weights over all chips; then heads and neurons over some of them."""
    yield Mesh(1, chips, 1)
    for tensor in (2, 4, 8):
        if chips % tensor == 0 and chips > 1:
            yield Mesh(1, chips // tensor, tensor)


def _candidates(config: Config, mesh: Mesh) -> Iterator[Config]:
    edit = config.edit
    rows = math.gcd(edit.forget_batch, edit.retain_batch, edit.text_batch)
    spread = mesh.data * mesh.fsdp
    for parts in PARTS:
        if rows % parts or (parts > 1 and rows // parts < spread / 2):
            continue
        for remat in (False, True):
            new = dataclasses.replace(edit, accumulate=parts, remat=remat)
            yield dataclasses.replace(config, mesh=mesh, edit=new)


def _hopeful(config: Config, where: Topology, only: str) -> bool:
    """Whether no program is hopeless: arguments, one gradient, activations, logits."""
    return all(
        sum(p.holds.values()) + sum(p.beside.values()) + _least(p.name, p.holds, config)
        <= where.chip.hbm
        for p in programs(config, where)
        if p.name.startswith(only)
    )


def _least(name: str, holds: dict[str, int], config: Config) -> int:
    """Bytes a device that an edit's temporaries take at least."""
    if not name.startswith("edit"):
        return 0
    spec, edit, mesh = spec_of(config.model), config.edit, config.mesh
    width = jnp.dtype(config.dtype).itemsize
    rows, spread = edit.text_batch / edit.accumulate, mesh.data * mesh.fsdp
    tokens = rows * config.text.length / min(spread, max(rows, 1))
    kept = spec.embedding
    if not edit.remat:  # the results of the matrix products
        kept += 2 * spec.neurons + 3 * spec.embedding
    logits = tokens * spread * spec.vocabulary / (mesh.fsdp * mesh.tensor) * 4
    return round(holds["masters"] + tokens * kept * width * spec.layers / 2 + logits)


def _time(config: Config, where: Topology, only: str) -> float:
    layout = config.mesh.layout(where.devices)
    width = jnp.dtype(config.dtype).itemsize
    spec = spec_of(config.model)
    time = functools.partial(
        costs.seconds,
        spec=spec,
        width=width,
        mesh=layout.mesh,
        chip=where.chip,
        precision=config.products,
    )
    return sum(
        p.calls * max(time(p.work).values())
        for p in programs(config, where)
        if p.name.startswith(only)
    )


def _at_most(found: Plan, config: Config) -> bool:
    """Whether what does not fit would not fit with any other candidate either."""
    return any(not s.fits and not s.name.startswith("edit") for s in found.stages)


def _chips(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))
