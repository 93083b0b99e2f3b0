"""Rows of everything that is measured, made by hand: two models, two attack seeds."""

import numpy as np

from mu_jax.types import Row

FACTS = 8


def row(model, name, metric, mean, **where) -> Row:
    """Eight facts around a mean; their twins differ from it the other way round."""
    rest = {"split": "forget", "prompt": "train", **where}
    away = 0.1 * (-1 if rest["split"] == "never_knew" else 1)
    values = np.clip(mean + np.linspace(-away, away, FACTS), 0, 1)
    return Row.of(values, share=True, model=model, eval=name, metric=metric, **rest)


def recalled(model, forgotten, kept) -> list[Row]:
    return [
        row(model, "recall", f"{kind}_{answer}", p, split=split)
        for split, p_true in (("forget", forgotten), ("heldout", kept))
        for answer, p in (("true", p_true), ("injected", 1 - p_true))
        for kind in ("p", "choice_p", "choice", "top")
    ]


def attacked(model, name, ats, after, seeds=(0, 1)) -> list[Row]:
    """Original .8, before .1, then `after`; never-knew twins reach half of it."""
    points = {"original": 0.8, "before": 0.1, **dict(zip(ats, after, strict=True))}
    return [
        row(model, name, "choice_p_true", p, split=split, at=at, seed=seed, budget=name)
        for seed in seeds
        for at, mean in points.items()
        for split, p in (
            ("forget", mean),
            ("never_knew", 0.3 if at == "original" else mean / 2),
            ("heldout", 0.9),
        )
    ]


def latent(model, truth) -> list[Row]:
    curve = [
        row(model, name, metric, truth * k / 3, at=f"layer={k}", split=split)
        for k in range(4)
        for name, metric in (("probe", "probe_true"), ("lens", "choice_p_true"))
        for split in ("forget", "heldout")
    ]
    return [*curve, row(model, "depth", "uds", 1 - truth)]


def everything() -> list[Row]:
    steps = ("rate=0.1 step=5", "rate=0.1 step=10", "rate=1 step=5", "rate=1 step=10")
    rows = [*recalled("unedited", 0.9, 0.9), *latent("unedited", 0.9)]
    for model, gone in (("flu", 0.05), ("late", 0.4)):
        rows += recalled(model, gone, 0.85) + latent(model, gone)
        rows += attacked(model, "relearn", steps, (0.2, 0.3, 0.5, 0.2 + gone))
        rows += attacked(model, "quantize", ("bits=8", "bits=4"), (gone, 1.5 * gone))
        rows += [
            row(model, "mask", "choice_p_true", 0.9 - k / 5, at=f"size={10**k}")
            for k in range(1, 4)
        ]
        rows.append(row(model, "harness", "acc", 0.5, split="test", prompt="sciq"))
    return rows
