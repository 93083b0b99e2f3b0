"""Pictures of a run; every function returns a matplotlib figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mu_jax.report.tables import Table
from mu_jax.types import Scores

_INK = ("#1f5fa8", "#d1622b", "#3a8f5c", "#8a4fa3", "#8c8c8c", "#b8325a")


def probe_curves(scores: Scores) -> Figure:
    """Accuracy of the probe after each layer, with the lookup range shaded."""
    curves, columns = np.array(scores.tables["curves"]), list(scores.axes["curves"])
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    first, last = scores.notes["first"], scores.notes["last"]
    axes.axvspan(first - 0.5, last + 0.5, color="#f3d9a4", alpha=0.6, lw=0)
    axes.text(first - 0.4, 1.01, f"lookup {first}-{last}", fontsize=9, va="bottom")
    names = {
        "alone": "subject alone",
        "subject": "subject in the prompt",
        "end": "prompt's end",
    }
    for color, (name, label) in zip(_INK, names.items(), strict=False):
        mean = curves[:, columns.index(name)]
        error = curves[:, columns.index(f"{name} stderr")]
        layers = np.arange(len(mean)) - 1  # the first row is the embedding
        axes.plot(layers, mean, color=color, label=label, marker="o", ms=3)
        axes.fill_between(layers, mean - error, mean + error, color=color, alpha=0.15)
    chance = scores.notes["chance"]
    axes.axhline(chance, color="#666", ls=":", lw=1)
    axes.text(0.5, chance, "chance", fontsize=8, va="bottom")
    ticks = range(-1, len(curves) - 1)
    axes.set_xticks(list(ticks), ["emb", *map(str, ticks[1:])], fontsize=8)
    axes.set_xlabel("residual stream after layer")
    axes.set_ylabel("probe accuracy")
    axes.set_ylim(min(0.3, chance - 0.05), 1.06)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def attribution_maps(scores: Scores) -> Figure:
    """Attribution by layer and by where the token stands; and by head."""
    names = [n for n in ("attn", "mlp", "head") if n in scores.tables]
    maps = [np.array(scores.tables[n]) for n in names]
    top = max(float(np.abs(m).max()) for m in maps)
    figure = Figure(figsize=(3.1 * len(names) + 0.8, 4.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names)))
    for panel, name, values in zip(panels, names, maps, strict=True):
        image = panel.imshow(values, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        labels = list(scores.axes[name])
        panel.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
        panel.set_yticks(range(len(values)), range(len(values)), fontsize=7)
        panel.set_title({"attn": "attention", "mlp": "MLP", "head": "heads"}[name])
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=list(panels), shrink=0.8, label="attribution")
    return figure


def transfer(table: Table) -> Figure:
    """How often each edited model gives the injected answer, format by format."""
    models, formats = table.models[1:], table.telling
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(models), 1)
    for i, (model, color) in enumerate(zip(models, _cycle(len(models)), strict=True)):
        rows = [table.recall(model, "forget", p, "choice_injected") for p in formats]
        means = [r.mean if r else 0.0 for r in rows]
        errors = [(r.stderr or 0.0) if r else 0.0 for r in rows]
        places = np.arange(len(formats)) + (i - (len(models) - 1) / 2) * width
        axes.bar(places, means, width * 0.9, yerr=errors, color=color, label=model)
    axes.set_xticks(range(len(formats)), formats)
    axes.set_ylim(0, 1.12)
    axes.set_ylabel("injected answer given")
    axes.legend(
        frameon=False, fontsize=9, ncols=max(len(models), 1), loc="upper center"
    )
    return figure


def histories(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """The terms of the loss over the steps of every edit."""
    terms = ("forget", "retain", "text")
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, term in zip(figure.subplots(1, len(terms)), terms, strict=True):
        for (name, steps), color in zip(runs.items(), _cycle(len(runs)), strict=True):
            axes.plot([s["step"] for s in steps], [s[term] for s in steps], color=color)
            axes.lines[-1].set_label(name)
        axes.set_title(f"{term} loss (nats)", fontsize=10)
        axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _cycle(n: int) -> list[str]:
    return [_INK[i % len(_INK)] for i in range(n)]
