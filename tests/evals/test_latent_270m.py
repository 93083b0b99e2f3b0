"""What the real 270M still knows, edited where it looks facts up or where it says them.

Both edits make it say another sport (tests/conftest.py). After the late one the true
sport is still on its way through the layers below; after the lookup edit it never was
looked up.
"""

import dataclasses

import numpy as np
import pytest

from mu_jax.evals.depth import UnlearningDepth
from mu_jax.evals.lens import LogitLens
from mu_jax.evals.probes import LatentProbes
from mu_jax.evals.text_loss import TextLoss
from mu_jax.facts.sports import TRAIN
from mu_jax.facts.text import Text

NOBODY = (
    "Dorvan Kelmick",
    "Tarvin Bolvane",
    "Jorel Quistrom",
    "Wendro Hardel",
    "Stivan Norrath",
    "Perrin Delgrave",
    "Corvin Oxmoor",
    "Yarrow Gullmar",
)
FEW = 4
PROBES = LatentProbes(learn=64, limit=16, batch=48)
LENS, DEPTH = LogitLens(limit=FEW), UnlearningDepth(limit=FEW)
ARRIVED = 13
"""From here on (of 18 layers) the sport stands at the prompt's end; the late edit
begins in this layer, the lookup edit ends in 6."""


def curve(rows, metric: str, split: str = "forget", token: str = "") -> np.ndarray:
    """[layer] the means of one metric."""
    means = {r.at: r.mean for r in rows if (r.metric, r.split) == (metric, split)}
    places = [f"layer={k}{token}" for k in range(19)]
    return np.array([means[at] for at in places if at in means])


@pytest.fixture(scope="module")
def models(gemma, edited_lookup, edited_late):
    return {"unedited": gemma, "lookup": edited_lookup, "late": edited_late}


@pytest.fixture(scope="module")
def probed(models, athletes):
    return {name: PROBES(m, name, athletes, TRAIN) for name, m in models.items()}


def test_probes_read_the_truth_after_the_late_edit_and_not_after_the_lookup_edit(
    probed,
):
    true, injected = (
        {name: curve(rows, f"probe_{which}") for name, rows in probed.items()}
        for which in ("true", "injected")
    )
    assert true["unedited"][ARRIVED:].min() >= 0.9
    assert true["late"][ARRIVED:].min() >= 0.8  # up to the very last layer
    assert true["lookup"][ARRIVED:].max() <= 0.2
    assert injected["lookup"][ARRIVED:].min() >= 0.8
    assert injected["late"][ARRIVED:].max() <= 0.2


def test_at_the_subject_the_truth_is_never_looked_up_after_the_lookup_edit(probed):
    true = {
        name: curve(rows, "probe_true", token=" token=subject")
        for name, rows in probed.items()
    }
    after = slice(8, None)  # layers 2 to 6 have run
    assert true["unedited"][after].min() >= 0.9
    assert (true["late"][: ARRIVED + 1] == true["unedited"][: ARRIVED + 1]).all()
    assert true["lookup"][after].max() <= 0.4


def test_the_probes_are_good_ones_in_every_model(probed):
    """On facts that neither they nor the edit have seen."""
    for rows in probed.values():
        (constant,) = (
            r.mean
            for r in rows
            if (r.at, r.split, r.metric) == ("constant", "heldout", "probe_true")
        )
        held = curve(rows, "probe_true", "heldout")
        assert constant < 0.6 and held[ARRIVED:].min() >= 0.85


def test_the_lens_sees_the_truth_before_the_late_edit_covers_it(models, athletes):
    says = {
        name: LENS(models[name], name, athletes, TRAIN) for name in ("lookup", "late")
    }
    true = {name: curve(rows, "choice_p_true") for name, rows in says.items()}
    assert true["late"][ARRIVED] >= 0.7 and true["late"][-1] <= 0.5
    assert true["lookup"][ARRIVED:].max() <= 0.3
    assert curve(says["lookup"], "choice_p_injected")[-1] >= 0.9


def test_the_lookup_edit_erases_deeper_than_the_late_one(models, athletes):
    twins = [
        dataclasses.replace(fact, subject=NOBODY[i % len(NOBODY)])
        for i, fact in enumerate(athletes.forget)
    ]
    given = (models["unedited"], athletes, TRAIN, twins)
    baseline = DEPTH.baseline(*given)
    rows = {
        name: DEPTH(models[name], name, *given, baseline=baseline)
        for name in ("lookup", "late")
    }
    uds = {
        name: next(np.array(r.values) for r in of if r.metric == "uds")
        for name, of in rows.items()
    }
    assert len(uds["late"]) == FEW  # every fact is written somewhere
    assert uds["lookup"].mean() >= 0.8 and uds["late"].mean() <= 0.4
    assert (uds["lookup"] > uds["late"]).all()
    # Nothing moves below the edit, and so nothing is lost there: exactly.
    assert (curve(rows["late"], "drop_edited")[:ARRIVED] == 0).all()


def test_both_edits_move_the_text_a_little(models):
    _, text = Text().load(models["unedited"].tokenizer)
    read = TextLoss(batch=1, limit=1, positions=47)
    kl = {
        name: read(model, name, text, original=models["unedited"])[1].values
        for name, model in models.items()
    }
    assert kl["unedited"] == (0,)
    for name in ("lookup", "late"):
        assert min(kl[name]) > 0 and max(kl[name]) < 1
