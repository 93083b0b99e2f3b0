"""Will a run fit a TPU topology, and what does it cost? No TPU is needed.

A run's own programs are compiled by the real TPU compiler, in shapes. Exit status 1
where something does not fit, with a remedy.
"""

import json
from collections.abc import Callable

import jax

from mu_jax.commands.words import overridden, target
from mu_jax.console import Console
from mu_jax.errors import UserError
from mu_jax.plan.chips import CHIPS, prepare, topology
from mu_jax.plan.plan import plan
from mu_jax.plan.search import overrides, smallest
from mu_jax.plan.show import as_json, lines
from mu_jax.runs.config import Config
from mu_jax.runs.loading import load
from mu_jax.types import Progress, silent

_VALUES, _FLAGS = ("--topology", "--only"), ("--search", "--json")


def main(args: list[str], console: Console) -> int:
    """Runs the command; see the module."""
    where, rest = target("plan", args)
    own, rest = options(rest)
    config = overridden(load(where), rest, f"mu plan {where}")
    return command(config, own, progress=console.progress)


def options(rest: list[str]) -> tuple[dict[str, str], list[str]]:
    """The plan's own options, and what else there is: the config's overrides."""
    own, others, queue = {}, [], list(rest)
    while queue:
        word = queue.pop(0)
        name, has_value, value = word.partition("=")
        if name in _VALUES:
            value = value if has_value else (queue.pop(0) if queue else "")
            if not value:
                raise UserError(f"{name} without a value", f"{name} VALUE")
            own[name] = value
        elif word in _FLAGS:
            own[word] = "yes"
        else:
            others.append(word)
    return own, others


def command(
    config: Config,
    own: dict[str, str],
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> int:
    """Plans, says so, and returns the exit status: 0 if all fits, else 1."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot keep these
    prepare()
    only, where = own.get("--only", ""), own.get("--topology", "")
    if "--search" in own:
        kind = where.partition(":")[0]
        kinds = (kind,) if where else tuple(CHIPS)
        if where and kind not in CHIPS:
            topology(where)
        found = smallest(config, kinds, only, progress)
    elif where:
        found = plan(config, topology(where), only, progress)
    else:
        raise UserError("mu plan without a topology", "--topology v5e:4x4, or --search")
    if "--json" in own:
        said = as_json(found)
        if "--search" in own:
            said["overrides"] = overrides(found)
        say(json.dumps(said, indent=1))
        return 0 if found.fits else 1
    for line in lines(found):
        say(line)
    if "--search" in own:
        say(f"the smallest that fits: {found.topology.name}; add {overrides(found)}")
    return 0 if found.fits else 1
