"""Attacks on the real 270M, edited where it looks facts up or where it says them.

Directions first measured with edits of 14 steps on 16 facts, over seeds (README).
"""

import dataclasses

import pytest

from mu_jax.attacks.perturb import Perturb
from mu_jax.attacks.quantize import Quantize
from mu_jax.attacks.relearn import Relearn
from mu_jax.attacks.restore import Restore
from mu_jax.attacks.victim import Victim
from mu_jax.facts.invented import twins
from mu_jax.facts.sports import TRAIN, Sports
from mu_jax.facts.text import Text
from mu_jax.selectors import Layers
from mu_jax.types import Facts


@pytest.fixture(scope="module")
def victims(gemma, athletes, edited_lookup, edited_late):
    """{where it was edited: the victim}."""
    text, _ = Text().load(gemma.tokenizer)
    asked = [*athletes.forget, *athletes.retain, *athletes.split("heldout")[:16]]
    facts = Facts(tuple(k for k in athletes.known if k.fact in asked))
    made = twins(facts.forget, Sports().load(), trained=asked)
    known = {fact.id: twin for fact, twin in zip(facts.forget, made, strict=True)}
    return {
        name: Victim(
            name=name,
            model=model,
            original=gemma,
            selection=Layers(mlp=layers)(None, gemma.sizes),
            facts=facts,
            twins=known,
            templates=(TRAIN,),
            text=text,
        )
        for name, model, layers in (
            ("lookup", edited_lookup, (2, 3, 4, 5, 6)),
            ("late", edited_late, (13, 14, 15, 16, 17)),
        )
    }


def measured(attack, victim) -> dict[tuple[str, str], float]:
    """(at, split) -> mean probability of the true answer over the options."""
    return {
        (r.at, r.split): r.mean
        for r in attack(victim, "attack", {})
        if r.metric == "choice_p_true"
    }


def test_relearning_half_brings_the_rest_back_after_the_late_edit_only(victims):
    attack = Relearn(
        rates=(3e-4,), steps=6, score_at=(6,), rank=8, taught=4, retain=4, text=1
    )
    found = {name: measured(attack, victim) for name, victim in victims.items()}
    after = {name: f["rate=0.0003 step=6", "forget"] for name, f in found.items()}
    assert found["late"]["original", "forget"] > 0.75
    assert found["late"]["before", "forget"] < 0.5
    assert after["late"] > 0.7  # none of the scored facts was taught
    assert after["lookup"] < 0.4
    assert found["late"]["rate=0.0003 step=6", "never_knew"] < 0.5  # not taught


def test_rounding_whole_channels_reveals_something_of_the_late_edit_only(victims):
    attack = Quantize(bits=(4,), group=None)
    found = {name: measured(attack, victim) for name, victim in victims.items()}
    gain = lambda name, split: (
        found[name]["bits=4", split] - found[name]["before", split]
    )
    late = victims["late"]  # it harms the unedited model too
    of = measured(attack, dataclasses.replace(late, model=late.original))
    assert of["bits=4", "heldout"] < of["original", "heldout"]
    assert gain("late", "forget") > 0.05 > gain("late", "never_knew")
    assert found["lookup"]["bits=4", "forget"] < 0.2


def test_one_small_vector_brings_back_what_the_late_edit_hides(victims):
    attack, at = Perturb(layers=(9,), epsilons=(0.03,)), "layer=9 eps=0.03"
    late = measured(attack, victims["late"])
    assert late[at, "forget"] > late["before", "forget"] + 0.2
    assert late[at, "forget"] > late[at, "never_knew"] + 0.2  # remembered, not guessed


def test_two_layers_undo_the_lookup_edit_and_no_one_layer_the_late_one(victims):
    lookup = measured(Restore(groups=("below",)), victims["lookup"])
    assert lookup["layers<=2", "forget"] < 0.4
    assert lookup["layers<=3", "forget"] > 0.6
    late = measured(Restore(groups=("layer",)), victims["late"])
    each = [late[f"layer={layer}", "forget"] for layer in range(13, 18)]
    assert late["before", "forget"] < min(each) <= max(each) < 0.6
