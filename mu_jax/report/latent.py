"""Latent knowledge: what a model still knows and no longer says."""

import numpy as np

from mu_jax.report.grid import Entry, Grid
from mu_jax.report.tables import INTERVALS, Measure, Table, coordinates, number
from mu_jax.types import Row

DEPTH = "depth of erasure"


def knowledge(table: Table) -> Grid | None:
    """A line a model: probes, the logit lens, the depth of erasure; None without any.

    Layers count from 0, the embeddings; K is the stream after K layers.
    """
    lines: list[tuple[Entry, ...]] = []
    for model in table.models:
        high, last = _ends(table, model, "probe", "probe_true")
        seen, _ = _ends(table, model, "lens", "choice_p_true")
        find = lambda what, model=model: table.estimates(model, what) if what else ()
        lines.append(
            (
                model,
                find(high),
                _layer(high),
                find(high and _on(high, "heldout")),
                find(last),
                find(high and _at(high, "constant")),
                find(seen),
                _layer(seen),
                find(depth(table)),
            )
        )
    header = (
        *("model", "probe: true, best layer", "after layer", "same probe, held-out"),
        *("probe: true, last layer", "constant answer", "lens: true, best layer"),
        *("after layer ", DEPTH),
    )
    lines = [line for line in lines if any(e and e != "-" for e in line[1:])]
    kept = [i for i in range(len(header)) if any(_some(line[i]) for line in lines)]
    if not lines:
        return None
    return Grid(
        "Latent knowledge",
        "Probe: share of forgotten facts whose true answer a linear probe, trained on"
        " the retained facts of that same model, reads off the stream (lower: more is"
        " erased, if the same probe is right about held-out facts). Best layer: where"
        " it reads it most often, chosen on the same facts: an upper bound. Constant"
        " answer: what a probe with nothing to read scores. Lens: probability of the"
        " true answer over the options if the model stopped after that layer. Depth of"
        " erasure (Unlearning Depth Score): 0 the unedited model's knowledge is intact,"
        f" 1 as gone as if never known. {INTERVALS}",
        tuple(header[i].rstrip() for i in kept),
        tuple(tuple(line[i] for i in kept) for line in lines),
    )


def depth(table: Table) -> Measure:
    """The depth score, in the format that it was measured in."""
    prompt = next((r.prompt for r in table.of("depth")), "")
    return Measure(DEPTH, "depth", "forget", prompt, "uds")


def layers(
    table: Table, model: str, name: str, metric: str, split: str = "forget"
) -> list[tuple[int, Measure]]:
    """The points of a curve over layers, at the prompt's last token, ascending."""
    rows = [
        r
        for r in table.of(name)
        if (r.model, r.split, r.metric) == (model, split, metric)
    ]
    found = {k: _measure(r) for r in rows if (k := _position(r)) is not None}
    return sorted(found.items())


def _ends(
    table: Table, model: str, name: str, metric: str
) -> tuple[Measure | None, Measure | None]:
    """The layer with the largest mean, and the last one."""
    curve = layers(table, model, name, metric)
    if not curve:
        return None, None
    means = [np.mean([r.mean for r in table.found(model, m)]) for _, m in curve]
    return curve[int(np.argmax(means))][1], curve[-1][1]


def _measure(row: Row) -> Measure:
    return Measure("", row.eval, row.split, row.prompt, row.metric, row.at)


def _position(row: Row) -> int | None:
    """The layer, of rows at the prompt's last token."""
    where = coordinates(row.at)
    found = number(where.get("layer", ""))
    return int(found) if found is not None and len(where) == 1 else None


def _on(what: Measure, split: str) -> Measure:
    return Measure("", what.eval, split, what.prompt, what.metric, what.at)


def _at(what: Measure, at: str) -> Measure:
    return Measure("", what.eval, what.split, what.prompt, what.metric, at)


def _layer(what: Measure | None) -> str:
    return coordinates(what.at)["layer"] if what else "-"


def _some(entry: Entry) -> bool:
    return bool(entry) and entry != "-"
