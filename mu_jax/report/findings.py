"""What the localizers found: a line each, and how far they agree."""

from collections.abc import Mapping

import numpy as np

from mu_jax.report.grid import Grid
from mu_jax.types import Scores


def finding(scores: Scores) -> str:
    """One line for people about the scores of one localizer."""
    if scores.finding:
        return scores.finding
    kinds = [k for k in ("mlp", "attn") if scores.of(k)]
    kinds = kinds or sorted({site.kind for site in scores.values})
    found = "; ".join(f"largest {k}: {_largest(scores, k)}" for k in kinds)
    return found or "no site has a score"


def _largest(scores: Scores, kind: str, n: int = 5) -> str:
    ranked = sorted(scores.of(kind).items(), key=lambda pair: -abs(pair[1]))[:n]
    return ", ".join(f"{site} {value:+.2f}" for site, value in ranked)


def agreement(found: Mapping[str, Scores]) -> Grid | None:
    """How well attribution predicts tracing, kind by kind; None without both.

    Only what was measured on the same prompts, clean and corrupt, with one metric.
    """
    pairs = [
        (a, t, found[a], found[t])
        for a in found
        for t in found
        if found[a].notes.get("measures") == "derivative"
        and found[t].notes.get("measures") == "effect"
    ]
    rows = []
    for a, t, attribution, tracing in pairs:
        sign = -1 if attribution.notes.get("direction") == "noising" else 1
        for kind in ("attn", "mlp", "resid", "head"):
            both = attribution.of(kind).keys() & tracing.of(kind).keys()
            x = [sign * attribution.values[site] for site in sorted(both)]
            y = [tracing.values[site] for site in sorted(both)]
            cells = _cells(attribution, tracing, kind)
            if len(both) > 2 and not _alike(attribution, tracing):
                rows.append((f"{a}, {t}", kind, "-", "-"))
            elif len(both) > 2:
                by_cell = (
                    "-" if cells is None else _correlation(sign * cells[0], cells[1])
                )
                rows.append((f"{a}, {t}", kind, _correlation(x, y), by_cell))
    if not rows:
        return None
    return Grid(
        "How well attribution predicts tracing",
        "Correlation (Pearson; rank correlation in brackets) of attribution, the"
        " derivative, with tracing, the effect itself: over sites patched at all"
        " positions, and over the cells of the maps by layer and role of the token. A"
        " dash where the two saw other prompts or another metric, or one is constant.",
        ("scores", "kind of site", "sites", "layer x role"),
        tuple(rows),
    )


def _alike(a: Scores, b: Scores) -> bool:
    """Whether both were measured on the same pairs of prompts with the same metric."""
    said = [(s.notes.get("prompts"), s.notes.get("metric")) for s in (a, b)]
    return said[0] == said[1] and None not in said[0]


def _cells(a: Scores, b: Scores, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The cells that both maps have: those of the columns of both."""
    if not all(kind in s.tables and kind in s.axes for s in (a, b)) or kind == "head":
        return None
    columns = [c for c in a.axes[kind] if c in b.axes[kind]]
    pick = lambda s: np.array(s.tables[kind])[
        :, [list(s.axes[kind]).index(c) for c in columns]
    ].ravel()
    return (pick(a), pick(b)) if columns else None


def _correlation(x, y) -> str:
    """Pearson's and Spearman's; a dash where one side is constant."""
    from scipy.stats import pearsonr, spearmanr

    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) < 1e-9 or np.ptp(y) < 1e-9:
        return "-"
    return f"{pearsonr(x, y)[0]:.2f} ({spearmanr(x, y)[0]:.2f})"
