"""Many patched runs of one base: cells of weights, through one compiled program.

A cell says which sites move (a kind, a run of layers, a head or all) and where (which
tokens of each row). Cells are run `batch` at a time and each batch is taken up at the
lowest layer that it moves: below, nothing differs from the base run, whose stream is
remembered. The layer is data, so one program serves every site. All this is exact.
"""

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mu_jax.devices.sharding import fetch
from mu_jax.errors import UserError
from mu_jax.localizers.metrics import Metric
from mu_jax.localizers.patching import Donors, Inputs, record
from mu_jax.localizers.roles import ROLES, roles
from mu_jax.model.model import Model
from mu_jax.model.network import take_last
from mu_jax.model.precision import EXACT
from mu_jax.model.specs import Spec
from mu_jax.model.taps import Patch
from mu_jax.types import Progress, Prompts, Site, silent

EVERYWHERE = "all"
PAGE = 4
"""Batches of cells a call: how often progress is told and results are kept."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """Sites moved together, in one run.

    Attributes:
      sites: of one layer or several; a head's site moves that head alone.
      where: all tokens, one of ROLES, or a position counted from the prompt's start.
    """

    sites: tuple[Site, ...]
    where: str | int = EVERYWHERE

    def __str__(self) -> str:
        return f"{'+'.join(map(str, self.sites))}@{self.where}"

    @property
    def start(self) -> int:
        """The lowest layer that is moved."""
        return min(site.layer for site in self.sites)


def sites_of(kind: str, spec: Spec) -> list[Site]:
    """Every site of a kind: one a layer, and for heads one a head."""
    units = range(spec.heads) if kind == "head" else (None,)
    return [Site(layer, kind, unit) for layer in range(spec.layers) for unit in units]


class Base(NamedTuple):
    """A base run to be patched, and the donors.

    entering: [layer + 1, batch, rest, embedding] the stream that enters each layer.
    donors:   kind -> [layer, batch, rest, ...]
    """

    inputs: Inputs
    entering: Float[Array, "layers batch rest embedding"]
    donors: Donors


def base(
    model: Model, inputs: Inputs, donors: Donors, prefix: int
) -> tuple[Base, Float[Array, "batch embedding"]]:
    """Makes the base run; returns it and the stream at its rows' ends."""
    ends, reads = record(
        model.network, model.params, inputs, kinds=("resid",), prefix=prefix
    )
    first = model.network.embeddings(model.params, inputs.prompts.tokens[:, prefix:])
    if inputs.noise is not None:
        first = first + inputs.noise
    entering = jnp.concatenate([first[None], reads["resid"]])
    return Base(inputs, entering, donors), ends


def sweep(
    model: Model,
    base: Base,
    cells: Sequence[Cell],
    metric: Metric,
    reference: Array,
    *,
    prefix: int,
    batch: int,
    weight: float = 1.0,
    slope: bool = False,
    done: MutableMapping[str, Any] | None = None,
    name: str = "",
    progress: Progress = silent,
) -> Float[np.ndarray, "cell row"]:
    """The metric of each row under each cell.

    Args:
      reference: what the metric remembers of the clean run.
      batch: cells run together; their rows' logits are in memory at once.
      weight: how far the cells' sites move towards the donor.
      slope: the derivative with respect to that weight, instead of the metric.
      done: rows of cells already measured under `name`; filled as the sweep goes. A
        page half done is run whole: a cell's last bits depend on those it runs with.

    Raises:
      UserError: a cell of no sites, of a site that the model lacks, or of a position
        outside the prompts.
    """
    done = {} if done is None else done
    for cell in cells:
        _check(cell, model, base)
    key = lambda cell: f"{name}{cell}"
    order = sorted({str(c): c for c in cells}.values(), key=lambda c: (c.start, str(c)))
    pages = [order[i : i + PAGE * batch] for i in range(0, len(order), PAGE * batch)]
    todo = [page for page in pages if any(key(cell) not in done for cell in page)]
    left, total = sum(map(len, todo)), len(cells)
    progress(f"patching {name}".strip(), total - left, total)
    for page in todo:
        starts, scales, masks = _page(page, model, base, prefix, batch)
        values = fetch(
            _run(
                model.network,
                model.params,
                base,
                reference,
                starts,
                scales,
                masks,
                weight,
                metric=metric,
                prefix=prefix,
                slope=slope,
            )
        ).reshape(PAGE * batch, -1)
        for cell, row in zip(page, values, strict=False):
            done.setdefault(key(cell), row.tolist())
        left -= len(page)
        progress(f"patching {name}".strip(), total - left, total)
    return np.array([done[key(cell)] for cell in cells])


@functools.partial(jax.jit, static_argnames=("network", "metric", "prefix", "slope"))
def _run(
    network,
    params,
    base: Base,
    reference: Array,
    starts: Int[Array, " page"],
    scales: Mapping[str, Float[Array, "page layer cell *head"]],
    masks: Bool[Array, "page cell batch rest"],
    weight: float,
    *,
    metric: Metric,
    prefix: int,
    slope: bool,
) -> Float[Array, "page cell batch"]:
    asked = base.inputs.prompts
    memory = network.remember(params, asked.tokens[0, :prefix])

    def run(cells):
        start, scale, mask = cells
        entering = jax.lax.dynamic_index_in_dim(base.entering, start, keepdims=False)
        entering = jnp.broadcast_to(entering, (len(mask), *entering.shape))

        def value(weight):
            patch = {
                kind: Patch(weight * _outer(part, mask), base.donors[kind])
                for kind, part in scale.items()
            }
            stream = network.resume(
                params,
                entering,
                start,
                asked.tokens,
                asked.valid,
                memory=memory,
                prefix=prefix,
                patch=patch,
            )
            ends = jax.vmap(take_last, (0, None))(stream, asked.last - prefix)
            return metric(network, params, ends, asked, reference)

        if slope:
            return jax.jvp(value, (weight,), (jnp.ones_like(weight),))[1]
        return value(weight)

    return jax.lax.map(run, (starts, scales, masks))


def _outer(scale: Array, mask: Array) -> Array:
    """[layer, cell, (head)] and [cell, batch, rest] to the weights of a patch."""
    letters = "lch,cbs->lcbsh" if scale.ndim == 3 else "lc,cbs->lcbs"
    return jnp.einsum(letters, scale, mask.astype(scale.dtype), precision=EXACT)


def _page(
    cells: Sequence[Cell], model: Model, base: Base, prefix: int, batch: int
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Cells in order of their start as arrays: PAGE batches of `batch` cells.

    Batches without a cell start behind the last layer, where nothing is left to run.
    """
    spec, prompts = model.spec, base.inputs.prompts
    size = PAGE * batch
    dtype = base.entering.dtype
    scales = {
        kind: np.zeros(
            (PAGE, spec.layers, batch) + ((spec.heads,) if kind == "head" else ()),
            dtype,
        )
        for kind in base.donors
    }
    masks = np.zeros((size, *prompts.tokens.shape), bool)
    starts = np.full(PAGE, spec.layers, np.int32)
    for i, cell in enumerate(cells):
        page, slot = divmod(i, batch)
        starts[page] = min(starts[page], cell.start)
        masks[i] = positions(prompts, cell.where)
        for site in cell.sites:
            at = (page, site.layer, slot) + (() if site.unit is None else (site.unit,))
            scales[site.kind][at] = 1
    masks = masks[:, :, prefix:]
    return starts, scales, masks.reshape(PAGE, batch, *masks.shape[1:])


def positions(prompts: Prompts, where: str | int) -> Bool[np.ndarray, "batch seq"]:
    """The tokens that `Cell.where` stands for."""
    valid = np.array(prompts.valid)
    if where == EVERYWHERE:
        return valid
    if isinstance(where, str):
        return roles(prompts)[:, :, ROLES.index(where)]
    return valid & (np.arange(valid.shape[1]) == where)


def _check(cell: Cell, model: Model, base: Base) -> None:
    spec, prompts = model.spec, base.inputs.prompts
    if not cell.sites:
        raise UserError("a cell of no sites", "at least one site to patch")
    for site in cell.sites:
        inside = 0 <= site.layer < spec.layers and site.kind in base.donors
        if not inside or not (site.unit is None or 0 <= site.unit < spec.heads):
            raise UserError(
                f"the site {site}",
                f"one of the kinds {', '.join(base.donors)} in layers 0 to"
                f" {spec.layers - 1}, heads 0 to {spec.heads - 1}",
                "name a site that the model has",
            )
    if isinstance(cell.where, str):
        if cell.where != EVERYWHERE and cell.where not in ROLES:
            raise UserError(
                f"the tokens {cell.where!r}", f"'all' or one of {', '.join(ROLES)}"
            )
    elif not 0 <= cell.where <= int(np.max(prompts.last)):
        raise UserError(
            f"position {cell.where}",
            f"a position inside the prompt, from 0 to {int(np.max(prompts.last))}",
            "count from the BOS token, 0",
        )
