"""Pictures of what has a curve: over layers, over steps, over weights that are gone."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mu_jax.attacks.scoring import BEFORE
from mu_jax.report import attacks as attacked
from mu_jax.report import latent as layered
from mu_jax.report import masks as masked
from mu_jax.report.attacks import CONTROL, Attacked
from mu_jax.report.grid import Estimates
from mu_jax.report.ink import INK, ink
from mu_jax.report.tables import Table, coordinates, number
from mu_jax.types import UNEDITED, Scores

_NAMES = {
    "alone": "subject alone",
    "subject": "subject in the prompt",
    "end": "prompt's end",
    "control": "control: shuffled labels",
}
_RANGES = (
    ("lookup", "first", "last", "#f3d9a4"),
    ("extraction", "extraction_first", "extraction", "#cfe3d4"),
)


def of_scores(scores: Scores) -> Figure:
    """The table `curves`, a line a column; lookup and extraction ranges shaded.

    A row a layer, of which the first may be the embedding's.
    """
    curves, columns = np.array(scores.tables["curves"]), list(scores.axes["curves"])
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, *ends, color in _RANGES:
        if all(end in scores.notes for end in ends):
            first, last = (scores.notes[end] for end in ends)
            axes.axvspan(first - 0.5, last + 0.5, color=color, alpha=0.6, lw=0)
            span = f"{first}-{last}" if first < last else f"{first}"
            axes.text(first - 0.4, 1.01, f"{name} {span}", fontsize=9, va="bottom")
    layers = {site.layer for site in scores.values}
    begin = -1 if len(curves) > 1 + max(layers, default=-1) else 0
    places = np.arange(len(curves)) + begin
    names = [c for c in columns if c.rpartition(" ")[2] not in ("low", "high")]
    for i, name in enumerate(names):
        of = lambda column: curves[:, columns.index(column)]
        color = INK[i % len(INK)]
        label = _NAMES.get(name, name)
        axes.plot(places, of(name), color=color, label=label, marker="o", ms=3)
        band = [f"{name} {end}" for end in ("low", "high")]
        if all(column in columns for column in band):
            low, high = map(of, band)
            axes.fill_between(places, low, high, color=color, alpha=0.15, lw=0)
    bottom = float(curves.min(initial=0.35)) - 0.1
    if "chance" in scores.notes:
        chance = scores.notes["chance"]
        bottom = min(0.25, chance - 0.1)
        axes.axhline(chance, color="#666", ls=":", lw=1)
        at = {"fontsize": 8, "va": "bottom", "ha": "right"}
        axes.text(places[-1] + 0.4, chance, "chance", **at)
    axes.set_xticks(places, ["emb" if i < 0 else str(i) for i in places], fontsize=8)
    axes.set_xlabel("residual stream after layer")
    axes.set_ylabel("probe accuracy" if "chance" in scores.notes else scores.method)
    axes.set_ylim(bottom, max(1.06, float(curves.max(initial=0)) * 1.06))
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return figure


TERMS = ("forget", "retain", "text")
"""Of the loss of a gradient edit."""


def histories(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The terms of the loss over the steps of every edit."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, term in zip(figure.subplots(1, len(TERMS)), TERMS, strict=True):
        for name, steps in runs.items():
            xs, ys = [s["step"] for s in steps], [s[term] for s in steps]
            axes.plot(xs, ys, color=ink(runs)[name], label=name)
        axes.set_title(f"{term} loss (nats)", fontsize=10)
        axes.set_xlabel("step")
    if runs:
        axes.legend(frameon=False, fontsize=8)
    return figure


def attacks(table: Table) -> list[Figure]:
    """Each attack that has steps: the true answer's probability at its worst rate.

    A picture shows all of a curve, so that the rate is chosen on all of the facts.
    """
    found = attacked.attacked(table)
    names = [a.attack for a in found if len(_steps(a)) > 1]
    panels = list(dict.fromkeys(names))
    if not panels:
        return []
    figure = Figure(figsize=(3.2 * len(panels) + 0.8, 3), layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, name in zip(every, panels, strict=True):
        mine = [a for a in found if a.attack == name and len(_steps(a)) > 1]
        for one in mine:
            color = ink(table.models)[one.model]
            steps, ats = zip(*_steps(one), strict=True)
            _line(axes, steps, [one.estimates(at) for at in ats], color, one.model)
            never = [one.estimates(at, CONTROL) for at in ats]
            _line(axes, steps, never, color, "", "--")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step")
    every[0].set_ylabel("p(true answer)")
    every[0].legend(frameon=False, fontsize=8, title="dashed: never knew")
    return [figure]


def latent(table: Table) -> list[Figure]:
    """Probe, logit lens and erasure over layers, a line a model."""
    panels = [
        ("probe", "probe_true", "probe reads the true answer"),
        ("lens", "choice_p_true", "lens: p(true answer)"),
        ("depth", "erased", "erased (depth score)"),
    ]
    panels = [p for p in panels if table.of(p[0])]
    if not panels:
        return []
    figure = Figure(figsize=(3.4 * len(panels) + 0.6, 3), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, metric, title) in zip(every, panels, strict=True):
        for model in table.models:
            points = layered.layers(table, model, name, metric)
            found = [table.estimates(model, what) for _, what in points]
            _line(axes, [k for k, _ in points], found, ink(table.models)[model], model)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("after layer")
        axes.set_ylim(-0.05, 1.05)
    every[0].legend(frameon=False, fontsize=8)
    return [figure]


def masks(table: Table) -> list[Figure]:
    """Forgotten and kept over the number of weights that are gone."""
    models = [m for m in table.models if m != UNEDITED and masked.sizes(table, m)]
    if not models:
        return []
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for model in models:
        color = ink(table.models)[model]
        sizes, ats = zip(*masked.sizes(table, model), strict=True)
        for split, style in (("forget", "-"), ("heldout", "--")):
            found = [
                next(
                    (
                        table.estimates(model, what)
                        for what in masked.measures(table, at)
                        if what.split == split
                    ),
                    (),
                )
                for at in ats
            ]
            _line(axes, sizes, found, color, model if style == "-" else "", style)
    axes.set_xscale("log")
    axes.set_xlabel("weights gone")
    axes.set_ylabel("p(true answer)")
    axes.legend(frameon=False, fontsize=8, title="dashed: held-out")
    return [figure]


def _steps(one: Attacked) -> list[tuple[float, str]]:
    """(step, where) along the worst rate, from before the attack on."""
    worst = coordinates(one.peak or "")
    if "step" not in worst:
        return []
    same = {k: v for k, v in worst.items() if k != "step"}
    found = [(0.0, BEFORE)]
    for at in one.points:
        where = coordinates(at)
        step = number(where.pop("step", ""))
        if step is not None and where == same:
            found.append((step, at))
    return sorted(found)


def _line(
    axes: Axes,
    x: Sequence[float],
    found: Sequence[Estimates],
    color,
    label: str,
    style: str = "-",
) -> None:
    """Means with a band for their intervals; what was not measured is left out."""
    points = [(a, e[0]) for a, e in zip(x, found, strict=True) if e]
    if not points:
        return
    places = [a for a, _ in points]
    ends = np.array(
        [
            (e.mean if e.low is None else e.low, e.mean if e.high is None else e.high)
            for _, e in points
        ]
    )
    means = [e.mean for _, e in points]
    axes.plot(places, means, style, color=color, label=label or None, linewidth=1.5)
    if style == "-":
        axes.fill_between(places, *ends.T, color=color, alpha=0.12, linewidth=0)
