"""The programs of each kind of localizer, in shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mu_jax.facts.corrupt import GaussianNoise
from mu_jax.localizers import derivative, flow, patched_runs
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.patching import Inputs
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.model.model import run
from mu_jax.model.taps import PER_HEAD
from mu_jax.plan import costs
from mu_jax.plan.costs import Work
from mu_jax.plan.lengths import Lengths
from mu_jax.plan.shapes import Shapes, Struct


class Pass(NamedTuple):
    """A program of a localizer: how it is lowered, how often it runs, what a run costs.

    inputs: the arrays it takes besides the model.
    """

    lower: Callable[[], Any]
    calls: int
    work: Work
    inputs: Any = None


def passes(localizer: Any, shapes: Shapes, length: Lengths) -> Pass | None:
    """The program in which a localizer spends its time and memory.

    None for one of one's own, whose programs are not known.
    """
    if isinstance(localizer, Probes):
        return _probes(localizer, shapes, length)
    if isinstance(localizer, EdgeAttribution):
        return _edges(localizer, shapes, length)
    if isinstance(localizer, AttributionPatching) and localizer.together:
        return _attribution(localizer, shapes, length)
    if isinstance(localizer, AttributionPatching | CausalTracing | PathPatching):
        return _sweep(localizer, shapes, length)
    return None


def _probes(probes: Probes, shapes: Shapes, length: Lengths) -> Pass:
    asked = shapes.prompts(probes.batch, length)
    batches = -(-min(probes.max_subjects, length.rows) // probes.batch)
    return Pass(
        lambda: run.lower(
            shapes.network,
            shapes.params,
            asked,
            {},
            prefix=length.prefix,
            read=("resid",),
        ),
        2 * batches,  # the subject alone, and in its prompt
        costs.forward(shapes.spec, probes.batch, length, spread=shapes.spread),
        asked,
    )


def _attribution(method: AttributionPatching, shapes: Shapes, length: Lengths) -> Pass:
    clean, corrupt = _inputs(method, method.batch, shapes, length)
    at = Struct((), shapes.dtype)
    points = method.steps or 1
    plain = not method.steps
    forwards = 3 if plain else 4  # donors; the base, its gradient; the base's own end
    return Pass(
        lambda: derivative.gradient.lower(
            shapes.network,
            shapes.params,
            clean,
            corrupt,
            at,
            kinds=method.kinds,
            metric=method.metric,
            prefix=length.prefix,
            noising=method.direction == "noising",
            plain=plain,
        ),
        _draws(method) * points * -(-method.rows // method.batch),
        _pass(shapes, method.batch, length).times(forwards),
        (clean, corrupt),
    )


def _edges(method: EdgeAttribution, shapes: Shapes, length: Lengths) -> Pass:
    clean, corrupt = _inputs(method, method.batch, shapes, length)
    scalar = Struct((), shapes.dtype)
    real = Struct((method.batch,), shapes.dtype)
    return Pass(
        lambda: flow.flow.lower(
            shapes.network,
            shapes.params,
            clean,
            corrupt,
            real,
            scalar,
            metric=method.metric,
            prefix=length.prefix,
        ),
        _draws(method) * (method.steps or 1) * -(-method.rows // method.batch),
        _pass(shapes, method.batch, length).times(4),
        (clean, corrupt),
    )


def _sweep(method: Any, shapes: Shapes, length: Lengths) -> Pass:
    """A page of cells; on average a cell is taken up half way through the layers."""
    spec, rows = shapes.spec, method.rows
    kinds = ("head", "attn") if isinstance(method, PathPatching) else method.kinds
    cells, draws = _cells(method, shapes), _draws(method)
    batch = 4 if isinstance(method, AttributionPatching) else method.batch
    if isinstance(method, CausalTracing) and method.mode == "paper":
        cells, batch, draws = cells, 1, 1  # a draw of its own for every cell
        calls = cells
    else:
        calls = draws * -(-cells // (batch * patched_runs.PAGE))
    base, reference = _base(method, kinds, rows, shapes, length)
    rest = length.width - length.prefix
    page, layers = patched_runs.PAGE, spec.layers
    struct = lambda shape, dtype: Struct(shape, dtype)
    units = lambda kind: (spec.heads,) if kind == "head" else ()
    scales = {
        kind: struct((page, layers, batch, *units(kind)), shapes.dtype)
        for kind in kinds
    }
    masks = struct((page, batch, rows, rest), bool)
    one = _pass(shapes, rows, length)
    one = one._replace(flops=batch * one.flops)  # its cells are run together
    run = min(page, -(-cells // batch))
    return Pass(
        lambda: patched_runs._run.lower(
            shapes.network,
            shapes.params,
            base,
            reference,
            struct((page,), jnp.int32),
            scales,
            masks,
            1.0,
            metric=method.metric,
            prefix=length.prefix,
            slope=isinstance(method, AttributionPatching),
        ),
        calls,
        one.times((1 if batch == 1 else run) / 2),
        (base, reference),
    )


def _pass(shapes: Shapes, rows: int, length: Lengths) -> Work:
    """A pass without logits."""
    return costs.forward(shapes.spec, rows, length, 0, shapes.spread)


def _cells(method: Any, shapes: Shapes) -> int:
    """How many cells are patched, those of the example's map left out."""
    spec = shapes.spec
    each = lambda kind: spec.layers * (spec.heads if kind == "head" else 1)
    if isinstance(method, PathPatching):
        return each("head")
    if isinstance(method, AttributionPatching):
        return sum(map(each, method.kinds)) * method.steps
    roles = 5 if method.by_role else 0
    maps = [kind for kind in method.kinds if kind != "head"]
    return sum(map(each, method.kinds)) + roles * spec.layers * len(maps)


def _base(method: Any, kinds, rows: int, shapes: Shapes, length: Lengths):
    """A base run with its donors, and what the metric remembers of the clean run."""
    spec, rest = shapes.spec, length.width - length.prefix
    _, corrupt = _inputs(method, rows, shapes, length)
    stream = (rows, rest, spec.embedding)
    widths = {
        kind: (spec.heads if kind in PER_HEAD else spec.head_groups, spec.projection)
        for kind in ("query", "key", "value", "head")
    }
    donors = {
        kind: shapes.rows(
            (spec.layers, rows, rest, *widths.get(kind, (spec.embedding,))), axis=1
        )
        for kind in kinds
    }
    entering = shapes.rows((spec.layers + 1, *stream), axis=1)
    ends = Struct((rows, spec.embedding), shapes.dtype)
    reference = jax.eval_shape(
        lambda params, ends: method.metric.reference(shapes.network, params, ends),
        shapes.params,
        ends,
    )
    reference = Struct(reference.shape, reference.dtype)
    return patched_runs.Base(corrupt, entering, donors), reference


def _inputs(method: Any, rows: int, shapes: Shapes, length: Lengths):
    """Clean and corrupt inputs; noise is an array of its own."""
    asked = shapes.prompts(rows, length)
    noise = None
    if isinstance(method.corruption, GaussianNoise):
        wide = (rows, length.width - length.prefix, shapes.spec.embedding)
        noise = Struct(wide, shapes.dtype)
    return Inputs(asked), Inputs(asked, noise)


def _draws(method: Any) -> int:
    how = method.corruption
    return how.draws if isinstance(how, GaussianNoise) else 1
