"""A run's own programs, in the order of its stages, in shapes: no weights are needed.

    facts         asks the model for every fact
    localize X    the program in which the localizer X spends its time
    edit X        the optimiser step of the selection X
    evaluate      the widest prompt format; evaluate text the general text

Selections by scores, which exist only after a run, are taken to lie in the first
quarter of the layers: the lower, the longer the backward pass.
"""

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mu_jax.edits.descent import Descent
from mu_jax.edits.editor import State
from mu_jax.edits.step import Batch, update
from mu_jax.errors import Doubt
from mu_jax.evals import recall, text_loss
from mu_jax.load import TINY
from mu_jax.model.params import sizes
from mu_jax.model.releases import spec
from mu_jax.model.specs import Spec
from mu_jax.plan import costs, localizing
from mu_jax.plan.chips import Topology
from mu_jax.plan.costs import Work
from mu_jax.plan.lengths import Lengths, assumed, shipped
from mu_jax.plan.shapes import Shapes, bytes_a_device
from mu_jax.runs.calls import called
from mu_jax.runs.config import Config
from mu_jax.selectors.selections import TENSORS
from mu_jax.selectors.selector import resized
from mu_jax.types import Prompts, Scores, Selection, Site

_HUB = re.compile(r"(?:google/|meta-llama/(?:Meta-)?)(.+?)(?:-pt|-it|-Instruct)?")


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program of a run.

    Attributes:
      name: `edit flu`.
      lower: makes what is compiled.
      calls: how often the run calls it.
      work: what a call costs.
      alike: programs of which this is equal need the same memory and collectives.
      holds: bytes on a device by what they are, before the program runs: its arguments.
      beside: bytes on a device that are no argument, but there meanwhile.
    """

    name: str
    lower: Callable[[], Any]
    calls: int
    work: Work
    alike: Hashable
    holds: dict[str, int]
    beside: dict[str, int] = dataclasses.field(default_factory=dict)


def spec_of(model: str) -> Spec:
    """The shape of a model by its name here or on the hub; its weights are not read."""
    if model in TINY:
        return TINY[model]()
    found = _HUB.fullmatch(model)
    short = found[1].lower() if found else model
    return spec(re.sub(r"^(gemma|llama)-([23])", r"\1\2", short))


def programs(config: Config, topology: Topology) -> Iterator[Program]:
    """A run's programs on a topology; those of baselines and attacks are left out.

    Raises:
      UserError: a mesh that does not fit the topology, or an unknown model.
    """
    layout = config.mesh.layout(topology.devices)
    dtype = jnp.dtype(config.dtype)
    shapes = Shapes(spec_of(config.model), layout, dtype, config.products)
    source = shipped(config.facts)
    with called("facts", source):
        facts = source.load()
    train = assumed([source.templates[0](fact) for fact in facts])
    yield _asking("facts", shapes, config.known.batch, train, train.rows)
    for name, localizer in config.localizers.items():
        part = localizing.passes(localizer, shapes, train)
        if part is None:
            kind = type(localizer).__name__
            said = f"localize {name} is not planned: what {kind} runs is not known"
            warnings.warn(Doubt(said), stacklevel=2)
            continue
        kind = "reads" if localizer.needs == "subjects" else "inputs"
        holds = {"weights": bytes_a_device(shapes.params)}
        holds[kind] = bytes_a_device(part.inputs)
        calls, work = part.calls, part.work
        yield Program(f"localize {name}", part.lower, calls, work, localizer, holds)
    chosen = selections(config, shapes.spec)
    for name, selection in chosen.items():
        yield _edit(config, name, selection, shapes, train)
    labels = {label for s in chosen.values() for label, _ in s.tensors}
    each = [[t.questions(fact) for fact in facts] for t in source.templates]
    formats = [assumed([q for of_one in of for q in of_one]) for of in each]
    widest = max(formats, key=lambda f: f.width)
    edited = {"unedited tensors": _stacks(shapes, labels)}
    most = (max(map(len, of)) * 3 * config.recall.limit for of in each)
    asked = sum(min(f.rows, n) for f, n in zip(formats, most, strict=True))
    asked *= 1 + len(chosen)
    yield _asking("evaluate", shapes, config.recall.batch, widest, asked, edited)
    yield _reading(config, shapes, 1 + len(chosen), edited)


def selections(config: Config, spec: Spec) -> dict[str, Selection]:
    """What the config selects, by the scores of the module's docstring."""
    quarter = max(1, spec.layers // 4)
    sites = (Site(i, kind) for i in range(spec.layers) for kind in TENSORS)
    values = {s: 1.0 if s.layer < quarter and s.kind == "mlp" else 0.01 for s in sites}
    scores = Scores("assumed", values, notes={"first": 0, "last": quarter - 1})
    out: dict[str, Selection] = {}
    for name, selector in config.selections.items():
        budget = getattr(selector, "budget", None)
        if isinstance(budget, str):
            selector = resized(selector, out[budget].n_params)
        out[name] = dataclasses.replace(selector(scores, sizes(spec)), name=name)
    return out


def _asking(
    name: str,
    shapes: Shapes,
    batch: int,
    length: Lengths,
    questions: int,
    beside: dict[str, int] | None = None,
) -> Program:
    asked = shapes.prompts(batch, length)
    return Program(
        name,
        lambda: recall._metrics.lower(
            shapes.network, shapes.params, asked, length.prefix
        ),
        -(-questions // batch),
        costs.forward(shapes.spec, batch, length, spread=shapes.spread),
        ("asking", batch, length.width, length.prefix, length.options),
        {"weights": bytes_a_device(shapes.params), "inputs": bytes_a_device(asked)},
        beside or {},
    )


def _reading(
    config: Config, shapes: Shapes, models: int, beside: dict[str, int]
) -> Program:
    rows, length = config.text_loss.batch, config.text.length
    text = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    return Program(
        "evaluate text",
        lambda: text_loss.read.lower(
            shapes.network, shapes.params, None, text, chunk=config.text_loss.positions
        ),
        models * -(-config.text_loss.limit // rows),
        costs.reading(shapes.spec, rows, length, shapes.spread),
        ("reading", rows, length),
        {"weights": bytes_a_device(shapes.params), "inputs": bytes_a_device(text)},
        beside,
    )


def _edit(
    config: Config, name: str, selection: Selection, shapes: Shapes, length: Lengths
) -> Program:
    edit = config.tuned(name)
    state = _state(edit, selection, shapes)
    batch = _batch(edit, shapes, length, config.text.length)
    return Program(
        f"edit {name}",
        lambda: update.lower(
            edit.program,
            shapes.network,
            selection,
            length.prefix,
            shapes.params,
            state,
            batch,
            jax.ShapeDtypeStruct((), jnp.float32),
        ),
        edit.steps,
        costs.step(
            shapes.spec, edit, selection, length, config.text.length, shapes.spread
        ),
        ("edit", selection.tensors, edit.accumulate, edit.remat),
        {
            "weights": bytes_a_device(shapes.params),
            "masters": bytes_a_device(state.edited),
            "optimiser": bytes_a_device(state.optimizer),
            "inputs": bytes_a_device(batch),
        },
    )


def _state(edit: Descent, selection: Selection, shapes: Shapes) -> State:
    begin = functools.partial(edit.begin, selection)
    state = jax.eval_shape(begin, shapes.params)
    return jax.tree.map(
        lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
        state,
        edit.shardings(shapes.network, state),
    )


def _batch(edit: Descent, shapes: Shapes, length: Lengths, text: int) -> Batch:
    parts = edit.accumulate
    lead, axis = ((parts,), 1) if parts > 1 else ((), 0)
    put = lambda rows, rest, dtype: shapes.rows(
        (*lead, rows // parts, *rest), dtype, axis
    )
    rows, wide = edit.forget_batch + edit.retain_batch, (length.width,)
    asked = Prompts(
        put(rows, wide, jnp.int32),
        put(rows, wide, jnp.dtype(bool)),
        put(rows, wide, jnp.dtype(bool)),
        put(rows, (), jnp.int32),
        put(rows, (), jnp.int32),
        put(rows, (length.options,), jnp.int32),
    )
    return Batch(asked, put(edit.text_batch, (text,), jnp.int32))


def _stacks(shapes: Shapes, labels: set[str]) -> int:
    """Of the stacks that an edited model does not share with the unedited one."""
    return bytes_a_device({label: shapes.params[label] for label in labels})
