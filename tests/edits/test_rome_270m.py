"""ROME on the real Gemma 3 270M: one athlete gets another sport, others keep theirs."""

import numpy as np
import pytest

import mu_jax as mu
from mu_jax.edits.covariance import Covariance
from mu_jax.errors import Doubt
from mu_jax.evals.recall import answers
from mu_jax.facts.sports import QA, TRAIN
from mu_jax.selectors import Layers

FACTS = 2


@pytest.fixture(scope="module")
def known(athletes):
    """Some athletes whose sport the model knows."""
    return [k.fact for k in athletes.known][:24]


@pytest.fixture(scope="module")
def after(gemma, known):
    """Of each of the edits: the fact in both formats, and others in the first."""
    selection = Layers(mlp=(1,))(None, gemma.sizes)
    both = mu.prompts([TRAIN(fact) for fact in known], gemma.tokenizer)
    keep, (text, _) = both.rows(slice(FACTS, None)), mu.Text().load(gemma.tokenizer)
    rome = mu.ROME(covariance=Covariance(tokens=1500))
    found = []
    for i, fact in enumerate(known[:FACTS]):
        with pytest.warns(Doubt, match="2048 neurons over 1504 tokens"):
            edit = rome(gemma, selection, both.rows(slice(i, i + 1)), keep, text)
        edited = gemma.update(edit)
        said = answers(edited, [fact, *known[FACTS:]], TRAIN, 64)
        qa = answers(edited, [fact], QA, 1)
        found.append((said, qa["top_injected"][0]))
    return found


def test_the_injected_sport_is_said_and_in_a_format_never_seen(after):
    assert sum(said["top_injected"][0] for said, _ in after) == FACTS
    assert sum(qa for _, qa in after) >= 1


def test_others_keep_their_sport_those_of_the_same_sport_too(known, after):
    others = known[FACTS:]
    assert len(others) >= 15
    kept = np.array([said["choice_true"][1:] for said, _ in after])
    same = np.array([[f.answer == g.answer for f in others] for g in known[:FACTS]])
    assert kept.mean() >= 0.95
    assert kept[same].mean() >= 0.9
