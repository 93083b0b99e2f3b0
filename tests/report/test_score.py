"""One number for an edit."""

import math

import numpy as np
import pytest

from mu_jax.report.score import METRICS
from mu_jax.types import Row


def rows(model, forget, heldout, given=0.0, prompt="train", note=""):
    for split, metric, mean in (
        ("forget", "choice_p_true", forget),
        ("heldout", "choice_p_true", heldout),
        ("forget", "choice_injected", given),
    ):
        values = mean + np.linspace(-0.1, 0.1, 5)
        yield Row.of(
            values,
            model=model,
            eval="recall",
            split=split,
            prompt=prompt,
            metric=metric,
            note=note,
        )


def test_what_is_forgotten_and_what_is_kept_count_alike():
    found = [*rows("unedited", 0.8, 0.8), *rows("flu", 0.2, 0.6, 0.9)]
    found += rows("flu", 0.4, 0.6, 0.5, prompt="qa")
    found += rows("flu", 0.9, 0.0, 0.0, prompt="mcq", note="not informative")
    found += rows("unedited", 0.8, 0.8, prompt="qa")
    got = {name: of(found, "flu") for name, of in METRICS.items()}
    want = {"forgotten": 0.7, "injected": 0.7, "kept": 0.75}
    want["score"] = want["injection"] = 2 * 0.7 * 0.75 / 1.45
    assert got == pytest.approx(want)


def test_more_than_all_is_not_kept_and_nothing_asked_is_no_number():
    found = [*rows("unedited", 0.8, 0.5), *rows("flu", 0.2, 0.6)]
    assert METRICS["kept"](found, "flu") == 1
    assert math.isnan(METRICS["score"](found, "late"))
    ruined = [*rows("unedited", 0.8, 0.5), *rows("flu", 0.0, 0.0)]
    assert METRICS["score"](ruined, "flu") == pytest.approx(0)
