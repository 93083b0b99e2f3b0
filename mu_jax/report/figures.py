"""Pictures of a run; every function returns a matplotlib figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mu_jax.report import curves
from mu_jax.report.ink import INK, ink
from mu_jax.report.tables import Measure, Table
from mu_jax.statistics import Estimate
from mu_jax.types import Scores, Site

_TITLES = {
    "attn": "attention",
    "mlp": "MLP",
    "resid": "residual",
    "head": "heads",
}


def of_scores(scores: Scores) -> list[Figure]:
    """Every picture of one localizer's scores."""
    figures = []
    if "curves" in scores.tables:
        figures.append(curves.of_scores(scores))
    if "edges" in scores.notes:
        figures.append(edge_circuit(scores))
    others = [k for k in scores.tables if k not in ("curves", "head")]
    examples = [k for k in others if k.startswith("example ")]
    maps = [k for k in others if k not in examples and len(scores.axes[k]) > 1]
    for names in filter(None, (maps, examples)):
        figures.append(heat_maps(scores, names))
    if "head" in scores.tables:
        figures.append(head_map(scores))
    return figures


def heat_maps(scores: Scores, names: Sequence[str]) -> Figure:
    """Tables [layer, column] side by side: roles of tokens, or the tokens of a prompt.

    Red is negative, blue positive, white 0; one scale for all.
    """
    maps = [np.array(scores.tables[n]) for n in names]
    labels = [[_shown(c) for c in scores.axes[n]] for n in names]
    # What stands before the first token that matters is the same in every column.
    examples = [m for n, m in zip(names, maps, strict=True) if n.startswith("example")]
    cut = min(map(_leading_zeros, examples), default=0)
    maps, labels = [m[:, cut:] for m in maps], [c[cut:] for c in labels]
    top = max(float(np.abs(m).max()) for m in maps) or 1.0
    width = sum(0.9 + 0.24 * len(c) for c in labels)
    figure = Figure(figsize=(min(width, 13) + 1, 4.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names)))
    for panel, name, values, columns in zip(panels, names, maps, labels, strict=True):
        image = panel.imshow(values, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        panel.set_xticks(range(len(columns)), columns, rotation=60, fontsize=8)
        panel.set_yticks(range(len(values)), range(len(values)), fontsize=7)
        kind = name.removeprefix("example ")
        panel.set_title(_TITLES.get(kind, kind), fontsize=10)
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=list(panels), shrink=0.8, label=scores.method)
    return figure


def head_map(scores: Scores) -> Figure:
    """Scores [layer, head]; extraction heads are ringed, MLPs stand beside."""
    values = np.array(scores.tables["head"])
    beside = None
    if len(scores.axes.get("mlp", ())) == 1:
        beside = np.array(scores.tables["mlp"])
    tables = [values] if beside is None else [values, beside]
    figure = Figure(figsize=(0.34 * values.shape[1] + 3.2, 4.6), layout="constrained")
    ratios = [t.shape[1] for t in tables]
    panels = np.atleast_1d(figure.subplots(1, len(tables), width_ratios=ratios))
    for panel, table, title in zip(panels, tables, ("heads", "MLPs"), strict=False):
        top = float(np.abs(table).max()) or 1.0
        image = panel.imshow(table, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        panel.set_xticks(range(table.shape[1]) if table.shape[1] > 1 else [])
        panel.tick_params(labelsize=7)
        panel.set_yticks(range(len(table)), range(len(table)))
        panel.set_title(title, fontsize=10)
        figure.colorbar(image, ax=panel, shrink=0.7)
    for name in scores.notes.get("extraction_heads", ()):
        site = Site.parse(name)
        panels[0].plot(site.unit, site.layer, "o", mfc="none", mec="#222", ms=11)
    panels[0].set_ylabel("layer")
    return figure


def edge_circuit(scores: Scores, n: int = 40) -> Figure:
    """The n largest edges: layers upwards, heads and the MLP of a layer in a row.

    Blue edges are positive, red negative; the wider the larger.
    """
    edges = list(scores.notes["edges"])[:n]
    heads = 1 + max((s.unit or 0 for s in scores.of("head")), default=0)
    layers = 1 + max((site.layer for site in scores.values), default=0)
    groups = scores.notes.get("head_groups", heads)

    def place(name: str) -> tuple[float, float]:
        if name in ("embed", "logits"):
            return heads / 2, -1.0 if name == "embed" else float(layers)
        layer, kind, *unit = name.split(".")
        if kind == "mlp":
            return heads + 0.6, int(layer) + 0.3
        at = float(unit[0])
        if kind in ("key", "value"):  # shared by the heads of its group
            at = (at + 0.5) * heads / groups - 0.5
        return at, int(layer) - 0.1

    figure = Figure(
        figsize=(1.1 * heads + 3, 0.36 * layers + 1.6), layout="constrained"
    )
    axes = figure.subplots()
    top = max((abs(v) for *_, v in edges), default=0.0) or 1.0
    for writer, reader, value in reversed(edges):
        (x0, y0), (x1, y1) = place(writer), place(reader)
        axes.annotate(
            "",
            (x1, y1),
            (x0, y0),
            arrowprops={
                "arrowstyle": "-|>",
                "color": INK[0] if value > 0 else INK[4],
                "lw": 0.4 + 3 * abs(value) / top,
                "alpha": 0.35 + 0.6 * abs(value) / top,
                "connectionstyle": "arc3,rad=0.12",
                "shrinkA": 6,
                "shrinkB": 6,
            },
        )
    named: dict[tuple[float, float], set[str]] = {}
    for name in {end for edge in edges for end in edge[:2]}:
        named.setdefault(place(name), set()).add(_node(name))
    for (x, y), texts in named.items():
        axes.text(x, y, "/".join(sorted(texts)), fontsize=7, ha="center", va="center")
    axes.set_xlim(-1, heads + 1.4)
    axes.set_ylim(-1.6, layers + 0.6)
    axes.set_yticks(range(layers))
    axes.set_xticks([])
    axes.tick_params(labelsize=7)
    axes.set_ylabel("layer")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _node(name: str) -> str:
    """The label of a writer or reader: h3, k0, v0, mlp, embed, logits."""
    _, kind, unit = [*name.split("."), "", ""][:3]
    if not kind:
        return name
    return {"head": "h", "query": "h"}.get(kind, kind if not unit else kind[0]) + unit


def _shown(token: str) -> str:
    """A token as a label: white space made visible, mathematics not interpreted."""
    return (token.replace("\n", "\\n").strip() or "␣").replace("$", r"\$")


def _leading_zeros(table: np.ndarray) -> int:
    """How many of the first columns hold nothing but 0."""
    some = (table != 0).any(axis=0)
    return int(some.argmax()) if some.any() else 0


def transfer(table: Table) -> Figure:
    """How often each edited model gives the injected answer, format by format."""
    models, formats = table.models[1:], table.direct
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(models), 1)
    for i, model in enumerate(models):
        what = [Measure("", "recall", "forget", p, "choice_injected") for p in formats]
        found = [next(iter(table.estimates(model, one)), None) for one in what]
        means = [e.mean if e else 0.0 for e in found]
        ends = [_reach(e) for e in found]
        places = np.arange(len(formats)) + (i - (len(models) - 1) / 2) * width
        axes.bar(
            places,
            means,
            width * 0.9,
            yerr=np.transpose(ends),
            color=ink(models)[model],
            label=model,
        )
    axes.set_xticks(range(len(formats)), formats)
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("injected answer given")
    if models:
        axes.legend(frameon=False, fontsize=9, ncols=len(models), loc="upper center")
    return figure


def _reach(e: Estimate | None) -> tuple[float, float]:
    """How far an interval reaches below and above its mean."""
    if e is None or e.low is None or e.high is None:
        return 0.0, 0.0
    return max(e.mean - e.low, 0.0), max(e.high - e.mean, 0.0)
