"""Soft prompts: what they put in front of, or into, a prompt, and what they leave."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_victim import bits, victim

from mu_jax.attacks import soft_prompt
from mu_jax.attacks.scoring import BEFORE, METRICS, ORIGINAL
from mu_jax.attacks.soft_adapter import SoftAdapter
from mu_jax.attacks.soft_prompt import SoftPrompt, behind_bos
from mu_jax.edits.losses import Truth
from mu_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")
KINDS = {
    "prompt": SoftPrompt(length=3, rate=0.5, steps=3, score_at=(1, 3), batch=3),
    "adapter": SoftAdapter(length=4, rate=0.05, steps=3, score_at=(1, 3), batch=3),
}


@pytest.fixture(scope="module", params=KINDS)
def soft(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def prey(tiny):
    return victim(tiny)


@pytest.fixture(scope="module")
def prompts(prey):
    return prey.prompts(prey.taught)[0]


@pytest.fixture(scope="module")
def attacked(prey, soft):
    journal, told = {}, []
    before = bits(prey.model), soft_prompt.update._cache_size()
    rows = soft(prey, "soft", journal, lambda *said: told.append(said))
    return before, journal, rows, told


def test_rows_and_a_model_that_stays_as_it_is(prey, soft, attacked):
    (before, _), _, rows, told = attacked
    found = [(r.at, r.prompt, r.split, r.metric) for r in rows]
    assert found == [
        (at, template.name, split, metric)
        for at in (ORIGINAL, BEFORE, "step=1", "step=3")
        for template in prey.templates
        for split in ("forget", "never_knew", "heldout")
        for metric in METRICS
    ]
    assert bits(prey.model) == before
    assert told == [("soft", k, 3) for k in range(4)]
    assert "3 steps" in rows[-1].budget and not rows[0].budget


def test_one_program_for_all_draws_rates_and_seeds(tiny, soft, attacked):
    (_, before), *_ = attacked
    assert soft_prompt.update._cache_size() == before + 1
    other = dataclasses.replace(soft, rate=0.2, steps=1, score_at=(1,), draws=1)
    other(victim(tiny, seed=1), "soft", {})
    assert soft_prompt.update._cache_size() == before + 1


def test_an_attack_that_ended_trains_nothing(prey, soft, attacked):
    _, journal, rows, _ = attacked
    told = []
    again = soft(prey, "soft", journal, lambda *said: told.append(said))
    assert again == rows and not told
    half = {key: v for key, v in journal.items() if "step=3" not in key}
    assert soft(prey, "soft", half) == rows


def test_what_is_taught_becomes_likelier_step_by_step(prey, soft, prompts):
    learner, losses = soft.begin(prey.model, [0, 0]), []
    for _ in range(14):
        said = soft.asking(prey.model, learner)(prompts, 0)
        losses.append(float(Truth()(said, prompts)))
        learner = soft.learn(prey.model, learner, prompts)
    assert losses[-1] < 0.8 * losses[0]


def test_draws_differ_and_come_again(tiny, soft):
    def first(seed):
        learner = soft.begin(tiny, seed)
        return [learner.tokens, *jax.tree.leaves(learner.trained)]

    same = lambda a, b: all((x == y).all() for x, y in zip(a, b, strict=True))
    assert same(first([0, 1]), first([0, 1]))
    assert not same(first([0, 1]), first([0, 0]))
    assert not same(first([0, 1]), first([1, 1]))


def test_unlearned_vectors_are_a_plain_prompt_with_those_tokens(prey, prompts):
    soft = KINDS["prompt"]
    learner = soft.begin(prey.model, [0, 0])
    said = soft.asking(prey.model, learner)(prompts, 0)
    plain = prey.model.run(behind_bos(prompts, learner.tokens, prey.model.spec))
    np.testing.assert_allclose(said, plain.logits, atol=1e-5)


def test_vectors_learned_onto_other_tokens_are_a_prompt_with_these(prey, prompts):
    """shift = embedding(new) - embedding(old): nothing else of a token is used."""
    soft, model = KINDS["prompt"], prey.model
    learner = soft.begin(model, [0, 0])
    others = np.array([7, 300, 41], np.int32)
    embed = lambda tokens: model.network.embeddings(model.params, tokens[None])[0]
    moved = {"shift": embed(others) - embed(learner.tokens)}
    said = soft.asking(model, learner._replace(trained=moved))(prompts, 0)
    plain = model.run(behind_bos(prompts, others, model.spec)).logits
    np.testing.assert_allclose(said, plain, atol=1e-5)
    assert not np.allclose(plain, soft.asking(model, learner)(prompts, 0), atol=1e-2)


def test_tokens_go_behind_bos_and_an_answer_stays_where_its_prompt_ends(tiny, prompts):
    tokens = np.array([5, 6], np.int32)
    put = behind_bos(prompts, tokens, tiny.spec)
    assert (put.tokens[:, 0] == tiny.tokenizer.bos).all()
    assert (put.tokens[:, 1:3] == tokens).all() and put.valid[:, :3].all()
    assert (put.tokens[:, 3:] == prompts.tokens[:, 1:]).all()
    assert (put.last == prompts.last + 2).all()
    assert (put.subject[:, 3:] == prompts.subject[:, 1:]).all()
    none = behind_bos(prompts, tokens[:0], tiny.spec)
    assert all((a == b).all() for a, b in zip(none, prompts, strict=True))
    with pytest.raises(UserError, match="the model's context"):
        behind_bos(prompts, np.zeros(tiny.spec.context, np.int32), tiny.spec)


def test_the_adapter_is_torchs_attention(tiny):
    import torch

    soft, d = KINDS["adapter"], tiny.spec.embedding
    rng = np.random.default_rng(0)
    trained = soft.variables(tiny.spec, rng)
    x = rng.standard_normal((2, 5, d)).astype(np.float32) * 3
    layer = torch.nn.MultiheadAttention(d, 1, bias=False, batch_first=True)
    w = {k: torch.tensor(np.array(a)) for k, a in trained.items()}
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([w[k].T for k in "ABC"]))
        layer.out_proj.weight.copy_(w["D"].T)
        query = torch.tensor(x) @ w["W"]
        key, value = (w[k].expand(2, -1, -1) for k in "KV")
        want = layer(query, key, value, need_weights=False)[0].numpy()
    got = soft.shift(trained, jnp.asarray(x))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.abs(want).max() > 0.05


def test_rows_of_keys_and_values_are_cut_to_the_norm_and_nothing_else_is(tiny):
    soft = dataclasses.replace(KINDS["adapter"], norm=2.0)
    trained = soft.variables(tiny.spec, np.random.default_rng(0))
    long = {k: a * np.float32(9) for k, a in trained.items()}
    long["K"] = long["K"].at[0].set(trained["K"][0])  # a short row
    cut = soft.project(long)
    for k in "WABCD":
        assert (cut[k] == long[k]).all()
    norms = {k: np.linalg.norm(cut[k], axis=1) for k in "KV"}
    np.testing.assert_allclose(norms["V"], 2, rtol=1e-6)
    np.testing.assert_allclose(norms["K"][1:], 2, rtol=1e-6)
    assert (cut["K"][0] == trained["K"][0]).all() and norms["K"][0] < 2
    cosine = (cut["V"] * long["V"]).sum(axis=1) / np.linalg.norm(long["V"], axis=1)
    np.testing.assert_allclose(cosine, 2, rtol=1e-6)


def test_the_papers_adapter():
    paper = SoftAdapter.paper()
    assert (paper.length, paper.norm, paper.rate) == (15, 6.0, 1e-5)
    assert (paper.steps, paper.batch, paper.draws, paper.clip) == (128, 16, 4, 1.0)


@pytest.mark.parametrize(
    "knobs",
    [
        {"length": 0},
        {"steps": 0},
        {"draws": 0},
        {"batch": 0},
        {"rate": 0.0},
        {"clip": 0.0},
        {"score_at": (33,)},
        {"score_at": ()},
    ],
)
def test_knobs_that_cannot_be_are_refused(knobs):
    with pytest.raises(UserError, match=next(iter(knobs))):
        SoftPrompt(**knobs)
