"""Directions taken out of the stream, and pushes to it, as the attacks use them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from noisy_victim import made

from mu_jax.attacks.directions import AblateDirection, last_stream
from mu_jax.attacks.perturb import Perturb, climb
from mu_jax.attacks.steering import Steering, spread, steered
from mu_jax.edits.losses import cross_entropy
from mu_jax.errors import UserError
from mu_jax.facts.tokens import concatenate, shared_prefix

pytestmark = pytest.mark.usefixtures("quick")
LAYER, RADIUS = 3, 0.7


@pytest.fixture(scope="module")
def victim(tiny):
    return made(tiny)


@pytest.fixture(scope="module")
def taught(victim):
    return victim.prompts(victim.taught)[0]


@pytest.fixture(scope="module")
def answer(victim, taught):
    """How the taught facts are answered under a steering: [batch, vocabulary]."""
    prefix = shared_prefix(taught)
    return lambda steering: steered(victim.model, steering)(taught, prefix)


def test_no_steering_is_the_plain_run(victim, taught, answer):
    got = answer(Steering.none(victim.model))
    plain = victim.model.run(taught, prefix=shared_prefix(taught)).logits
    np.testing.assert_allclose(got, plain, rtol=0, atol=1e-6)


def test_layers_are_spread_over_the_depth(tiny):
    assert spread(tiny, None, 3) == (1, 3, 5)
    assert spread(tiny, None, 20) == tuple(range(7))
    assert spread(tiny, (6, 0), 3) == (6, 0)
    with pytest.raises(UserError, match="layers from 0 to 6"):
        spread(tiny, (7,), 3)


# ---- difference of means


def test_a_direction_is_from_retained_facts_of_the_same_answer(victim):
    found = AblateDirection().directions(victim)
    kept = [
        f for f in victim.facts.retain if f.answer in {t.answer for t in victim.taught}
    ]
    both = concatenate(victim.prompts(victim.taught, tuple(kept)))
    ends = last_stream(victim.model, both)
    away = []
    for i, fact in enumerate(victim.taught):
        like = [
            ends[:, len(victim.taught) + j]
            for j, other in enumerate(kept)
            if other.answer == fact.answer
        ]
        away.append(ends[:, i] - np.mean(like, axis=0))
    want = np.mean(away, axis=0)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


def test_where_no_answer_is_shared_all_retained_facts_count(victim):
    strange = tuple(
        dataclasses.replace(k, fact=dataclasses.replace(k.fact, answer=" golf"))
        if k.split == "retain"
        else k
        for k in victim.facts.known
    )
    facts = dataclasses.replace(victim.facts, known=strange)
    found = AblateDirection().directions(dataclasses.replace(victim, facts=facts))
    both = concatenate(victim.prompts(victim.taught, victim.facts.retain))
    ends = last_stream(victim.model, both)
    n = len(victim.taught)
    want = ends[:, :n].mean(axis=1) - ends[:, n:].mean(axis=1)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("onward", [True, False])
def test_a_direction_is_taken_out_of_the_layers_that_it_should_be(victim, onward):
    attack = AblateDirection(layers=(LAYER,), onward=onward)
    found = np.eye(7, 32, dtype=np.float32)
    steering = attack.steering(victim.model, found, LAYER)
    assert not steering.shift.any()
    hit = range(LAYER, 7) if onward else (LAYER,)
    for layer in range(7):
        want = found[LAYER] if layer in hit else 0
        np.testing.assert_array_equal(steering.ablate[layer], want)


def test_taking_a_direction_out_twice_or_backwards_is_taking_it_out_once(
    victim, answer
):
    none = Steering.none(victim.model)
    found = AblateDirection().directions(victim)
    made = answer(none._replace(ablate=found))
    assert np.abs(made - answer(none)).max() > 1e-3
    np.testing.assert_allclose(
        made, answer(none._replace(ablate=-found)), rtol=0, atol=1e-6
    )


# ---- a vector climbed for


def test_a_step_goes_up_the_slope_and_is_as_long_as_asked(victim, taught, answer):
    model, prefix = victim.model, shared_prefix(taught)
    zero = np.zeros(model.spec.embedding, np.float32)
    step = lambda v, radius, size: climb(
        model.network,
        model.params,
        taught,
        np.int32(LAYER),
        v,
        np.float32(radius),
        np.float32(size),
        prefix,
    )
    moved = np.asarray(step(zero, RADIUS, 0.01))
    assert np.linalg.norm(moved) == pytest.approx(0.01 * RADIUS, rel=1e-5)

    def known(vector):
        steering = Steering.none(model)
        steering.shift[LAYER] = vector
        return -float(
            cross_entropy(answer(steering), jnp.asarray(taught.answer)).mean()
        )

    # Of all small steps of a length, that along the slope rises the most.
    rises = known(moved) - known(zero)
    others = np.random.default_rng(0).standard_normal((5, len(zero)))
    others *= np.linalg.norm(moved) / np.linalg.norm(others, axis=1, keepdims=True)
    assert rises > max(known(other) - known(zero) for other in others.astype("f"))
    assert known(-moved) - known(zero) == pytest.approx(-rises, rel=0.1)


def test_the_vector_stays_in_its_ball_and_raises_what_it_climbs(victim, taught, answer):
    attack = Perturb(steps=6, step=0.5)
    scores = []
    for radius in (0.0, RADIUS, 2 * RADIUS):
        vector = attack.vector(victim, LAYER, radius)
        assert np.linalg.norm(vector) <= radius * (1 + 1e-6)
        steering = Steering.none(victim.model)
        steering.shift[LAYER] = vector
        logits = answer(steering)
        scores.append(-float(cross_entropy(logits, jnp.asarray(taught.answer)).mean()))
    assert scores[0] < scores[1] < scores[2]


def test_norms_are_those_of_real_tokens_behind_the_prefix(victim):
    long = dataclasses.replace(victim.facts.known[0].fact, subject="Ann B C D Long")
    known = (dataclasses.replace(victim.facts.known[0], fact=long),)
    facts = dataclasses.replace(victim.facts, known=(*known, *victim.facts.known[1:]))
    victim = dataclasses.replace(victim, facts=facts, seed=1)
    assert long in victim.taught
    taught = victim.prompts(victim.taught)[0]
    found = Perturb().norms(victim)
    prefix = shared_prefix(taught)
    resid = np.asarray(victim.model.run(taught, read=("resid",)).reads["resid"])
    assert not taught.valid.all()
    each = [
        np.linalg.norm(resid[:, row, place], axis=-1)
        for row in range(len(taught.tokens))
        for place in range(prefix, taught.last[row] + 1)
    ]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    "knobs", [{"steps": 0}, {"epsilons": ()}, {"epsilons": (-0.1,)}, {"step": 0.0}]
)
def test_a_climb_that_means_nothing_is_refused(knobs):
    with pytest.raises(UserError):
        Perturb(**knobs)
