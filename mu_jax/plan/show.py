"""A plan in words, and as JSON."""

from collections.abc import Iterator

from mu_jax.plan.chips import GIB
from mu_jax.plan.lengths import TOKENS_A_WORD
from mu_jax.plan.plan import Plan, Stage

_FIELDS = (
    *("name", "fits", "peak_bytes", "hbm_bytes", "memory", "flops", "collectives"),
    *("seconds", "bound", "calls", "chip_hours"),
)


def as_json(plan: Plan) -> dict:
    """One object; bytes are of one device, seconds of one call."""
    return {
        "config": plan.config.name,
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "mesh": str(plan.layout),
        "fits": plan.fits,
        "chip_hours": plan.chip_hours,
        "stages": [{k: getattr(s, k) for k in _FIELDS} for s in plan.stages],
    }


def lines(plan: Plan) -> Iterator[str]:
    """For people."""
    yield (
        f"{plan.config.name} on {plan.topology.name} ({plan.topology.chips} chips),"
        f" mesh {plan.layout}, weights {plan.config.dtype}"
    )
    yield (
        "planned, not measured; prompt lengths assumed:"
        f" {TOKENS_A_WORD} tokens a word of the shipped facts"
    )
    for stage in plan.stages:
        yield from _stage(stage)
    yield f"at least {plan.chip_hours:.3g} chip-hours in all"
    if not plan.fits:
        yield f"does not fit: {', '.join(s.name for s in plan.stages if not s.fits)}"
        yield f"remedy: {remedy(plan)}"


def _stage(stage: Stage) -> Iterator[str]:
    verdict = "fits" if stage.fits else "DOES NOT FIT"
    peak, hbm = stage.peak_bytes / GIB, stage.hbm_bytes / GIB
    yield f"  {stage.name}: {verdict}, {peak:.2f} of {hbm:.2f} GiB"
    parts = [f"{k} {v / GIB:.2f}" for k, v in stage.memory.items() if v > GIB // 200]
    yield f"    memory: {', '.join(parts)}"
    said = ", ".join(f"{n} {kind}" for kind, n in stage.collectives.items())
    yield f"    {stage.flops / 1e12:.3g} TFLOP a call; collectives: {said or 'none'}"
    yield (
        f"    at least {stage.seconds:.2g} s a call ({stage.bound}),"
        f" {stage.calls} calls, {stage.chip_hours:.2g} chip-hours"
    )


def remedy(plan: Plan) -> str:
    """What to change where something does not fit."""
    misfits = [stage for stage in plan.stages if not stage.fits]
    edit, said = plan.config.edit, []
    if any(stage.name.startswith("edit") for stage in misfits):
        if not edit.remat:
            said.append("--edit.remat")
        rows = (edit.forget_batch, edit.retain_batch, edit.text_batch)
        more = edit.accumulate * 2
        if not any(n % more for n in rows):
            said.append(f"--edit.accumulate {more}")
    if any(not stage.name.startswith("edit") for stage in misfits):
        said.append("smaller batches of that stage")
    said.append("more chips (--topology) with a larger --mesh.fsdp")
    return f"{'; '.join(said)}; or let mu plan --search look for the smallest that fits"
