"""Every step of a descent against the formulas, written out once more in numpy.

Losses are those of a plain model asked row by row, without padding, prefix, parts or
selection; their derivatives are JAX's, and what is done with them is numpy's alone.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rounding import double

from mu_jax import selectors
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.lora import LoRA
from mu_jax.edits.losses import NPO
from mu_jax.edits.rmu import RMU
from mu_jax.edits.subjects import align
from mu_jax.edits.values import Value
from mu_jax.facts.tokens import shared_prefix
from mu_jax.model.params import put, take
from mu_jax.testing import tiny_model, tiny_spec

pytestmark = pytest.mark.usefixtures("quick", "float64")
ROWS = {"forget_batch": 2, "retain_batch": 2, "text_batch": 1}
RATE, STEPS = 1e-2, 3


@pytest.fixture
def model():
    return double(tiny_model(tiny_spec(3, layers=4)))


@pytest.fixture
def selection(model):
    return selectors.Layers(mlp=(1, 2))(None, model.sizes)


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


class Adam:
    """AdamW without decay (Kingma & Ba 2015), its gradients cut to a global norm."""

    def __init__(self, clip: float):
        self.clip, self.m, self.v, self.t = clip, {}, {}, 0

    def __call__(self, gradients, rate: float) -> dict[str, np.ndarray]:
        """What is taken off each variable."""
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        self.t, out = self.t + 1, {}
        for k, g in gradients.items():
            g = g * min(1, self.clip / norm)
            self.m[k] = 0.9 * self.m.get(k, 0) + 0.1 * g
            self.v[k] = 0.999 * self.v.get(k, 0) + 0.001 * g**2
            m, v = self.m[k] / (1 - 0.9**self.t), self.v[k] / (1 - 0.999**self.t)
            out[k] = rate * m / (np.sqrt(v) + 1e-8)
        return out


def cosine(step: int) -> float:
    """The learning rate of a step, which is given to it in float32."""
    return float(np.float32(RATE * (1 + np.cos(np.pi * step / STEPS)) / 2))


def rows(prompts):
    """Each row by itself, without its padding: tokens, answer, foil."""
    for i, n in enumerate(prompts.valid.sum(axis=1)):
        yield prompts.tokens[i : i + 1, :n], prompts.answer[i], prompts.foil[i]


@functools.partial(jax.jit, static_argnums=0)
def says(network, params, tokens):
    """[seq, vocabulary] log probabilities behind each token."""
    stream, _ = network.stream(params, tokens)
    return jax.nn.log_softmax(network.logits(params, stream[0]))


def loss(params, original, network, batch, how):
    """L of a gradient edit, term by term and row by row."""
    forget, retain, text = [], [], []
    for i, (tokens, answer, foil) in enumerate(rows(batch.prompts)):
        log_p = says(network, params, tokens)[-1]
        if i >= how.forget_batch:
            retain.append(-log_p[answer])
        elif isinstance(how.loss, NPO):
            ratio = log_p[answer] - says(network, original, tokens)[-1][answer]
            beta = how.loss.beta
            forget.append(2 / beta * jnp.log(1 + jnp.exp(beta * ratio)))
        else:
            forget.append(-log_p[foil])
    for row in batch.text:
        log_p = says(network, params, row[None])[:-1]
        text.append(-log_p[np.arange(len(row) - 1), row[1:]])
    mean = lambda values: jnp.mean(jnp.stack(values))
    return how.loss.weight * mean(forget) + mean(retain) + mean(text)


@pytest.mark.parametrize(
    ("how", "clip"),
    [(GradientEdit(), 0.1), (GradientEdit(loss=NPO(1.5)), 1e9)],
    ids=["clipped", "NPO, not clipped"],
)
def test_a_gradient_edit_is_three_steps_of_adam_down_its_loss(
    model, selection, told, how, clip
):
    how = dataclasses.replace(
        how, steps=STEPS, learning_rate=RATE, clip=clip, seed=1, **ROWS
    )
    tensors, adam = dict(selection.tensors), Adam(clip)
    chosen = take(model.params, tensors)
    slope = jax.value_and_grad(
        lambda some, batch: loss(
            put(model.params, tensors, some), model.params, model.network, batch, how
        )
    )
    walk = how.walk(model, selection, *told)
    next(walk)
    for number, step in enumerate(walk):
        value, gradients = slope(chosen, how.batch(number, *told))
        np.testing.assert_allclose(step.history[-1]["loss"], value, rtol=1e-9)
        off = adam({k: plain(g) for k, g in gradients.items()}, cosine(number))
        chosen = {
            k: dataclasses.replace(a, data_array=a.data_array - off[k])
            for k, a in chosen.items()
        }
        made = step().params
        for k, a in chosen.items():
            np.testing.assert_allclose(
                plain(made[k]), plain(a), rtol=0, atol=1e-8 * RATE
            )
    assert adam.t == STEPS


def test_lora_is_adam_on_two_factors_whose_product_is_scaled(model, told):
    """W + alpha / rank A B, as Hu et al. 2021 (arXiv 2106.09685) have it."""
    selection = selectors.Layers(mlp=(2,))(None, model.sizes)
    how = LoRA(steps=STEPS, learning_rate=RATE, clip=0.1, rank=3, alpha=7.0, **ROWS)
    tensors, adam, scale = dict(selection.tensors), Adam(0.1), 7.0 / 3
    factors = {
        k: plain(a)[0] for k, a in how.variables(model.params, selection).items()
    }
    old = take(model.params, tensors)

    def merged(factors):
        out = {}
        for label, array in old.items():
            a, b = factors[f"{label}.in"], factors[f"{label}.out"]
            change = scale * (a.reshape(3, -1).T @ b.reshape(3, -1))
            change = change.reshape(array.data_array.shape)
            out[label] = dataclasses.replace(
                array, data_array=array.data_array + change
            )
        return out

    slope = jax.grad(
        lambda some, batch: loss(
            put(model.params, tensors, merged(some)), None, model.network, batch, how
        )
    )
    walk = how.walk(model, selection, *told)
    next(walk)
    for number, step in enumerate(walk):
        gradients = slope(factors, how.batch(number, *told))
        off = adam({k: np.array(g) for k, g in gradients.items()}, cosine(number))
        factors = {k: a - off[k] for k, a in factors.items()}
        for k, a in factors.items():
            got = plain(step.state.edited[k])[0]
            np.testing.assert_allclose(got, a, rtol=0, atol=1e-8 * RATE)


def test_rmu_is_a_squared_distance_in_units_of_the_stream(model, selection, told):
    """|h - c |h0| u|^2 / |h0|^2 and |h - h0|^2 / |h0|^2, token by token."""
    how = RMU(coefficient=1.7, weight=0.8, retain=3.0, direction_seed=4, **ROWS)
    batch, layer = how.batch(0, *told), selection.layers[-1]
    prefix = shared_prefix(*told[:2])
    tensors = dict(selection.tensors)
    trained = jax.tree.map(lambda a: a * 1.3, take(model.params, tensors))
    edited = put(model.params, tensors, trained)
    u = np.random.default_rng(4).uniform(size=model.spec.embedding)
    u /= np.linalg.norm(u)

    def stream(params, tokens):
        _, reads = model.network.stream(params, tokens, read=("resid",))
        return np.array(reads["resid"])[layer, 0]

    def gaps(tokens, start, steer):
        h0, h = (stream(p, tokens)[start:] for p in (model.params, edited))
        unit = (h0**2).sum(axis=1)
        goal = 1.7 * np.sqrt(unit)[:, None] * u if steer else h0
        return ((h - goal) ** 2).sum(axis=1) / unit

    asked = [tokens for tokens, *_ in rows(batch.prompts)]
    terms = {
        "forget": np.concatenate([gaps(t, prefix, True) for t in asked[:2]]).mean(),
        "retain": np.concatenate([gaps(t, prefix, False) for t in asked[2:]]).mean(),
        "text": np.concatenate([gaps(t[None], 1, False) for t in batch.text]).mean(),
    }
    _, got = how.objective(
        trained, model.network, selection, prefix, model.params, batch
    )
    for name, value in terms.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)
    total = 0.8 * terms["forget"] + 3.0 * (terms["retain"] + terms["text"])
    np.testing.assert_allclose(got["loss"], total, rtol=1e-6)


@pytest.mark.parametrize("clamp", [0.05, 9.0])
def test_a_value_is_found_by_adam_on_a_decayed_and_clamped_change(model, told, clamp):
    how = Value(steps=4, learning_rate=0.5, decay=0.3, clamp=clamp, enough=0.0)
    subjects = align(told[0], told[2], 2, 5)
    asked, start, layer, scale = subjects.prompts.rows(0), subjects.start, 2, 2.5
    size, network = model.spec.embedding, model.network
    shape = (model.spec.layers, *asked.tokens.shape, size)

    def objective(e):
        shift = jnp.zeros(shape).at[layer, :, start].set(scale * e)
        stream, _ = network.stream(
            model.params, asked.tokens, asked.valid, shift={"down": shift}
        )
        ends = stream[np.arange(len(stream)), np.asarray(asked.last)]
        log_p = jax.nn.log_softmax(network.logits(model.params, ends))
        nll = -log_p[np.arange(len(ends)), asked.foil].mean()
        return nll + 0.3 * (e**2).sum(), nll

    slope = jax.value_and_grad(objective, has_aux=True)
    e, adam, losses = np.zeros(size), Adam(np.inf), []
    for _ in range(4):
        (_, nll), gradient = slope(e)
        losses.append(float(nll))
        e = e - adam({"e": np.array(gradient)}, 0.5 / np.sqrt(size))["e"]
        e = e * min(1, clamp / np.linalg.norm(e))
    found = how(network, model.params, asked, start, "down", layer, scale)
    np.testing.assert_allclose(found.delta, scale * e, rtol=0, atol=1e-6 * scale)
    assert int(found.steps) == 4
    np.testing.assert_allclose(found.before, losses[0], rtol=1e-9)
    np.testing.assert_allclose(found.after, objective(e)[1], rtol=1e-6)
    bound = np.linalg.norm(e)
    assert bound == pytest.approx(clamp) if clamp < 1 else bound < clamp


def test_without_masters_a_step_is_rounded_to_the_models_own_dtype(tiny, told):
    """In bfloat16, whose steps are 2^-8 apart: most of a small change is lost."""
    selection = selectors.Layers(mlp=(2,))(None, tiny.sizes)
    half = {k: a.astype(jnp.bfloat16) for k, a in tiny.params.items()}
    half = dataclasses.replace(tiny, params=half)
    how = GradientEdit(steps=1, learning_rate=1e-3, masters=False, **ROWS)
    *_, last = how.walk(half, selection, *told)
    *_, wide = dataclasses.replace(how, masters=True).walk(half, selection, *told)
    assert {a.dtype for a in last.state.edited.values()} == {jnp.dtype(jnp.bfloat16)}
    leaves = jax.tree.leaves(last.state.optimizer)
    assert {leaf.dtype for leaf in leaves if leaf.ndim} == {jnp.dtype(jnp.bfloat16)}
    for k, master in wide().params.items():
        old = plain(half.params[k].astype(jnp.float32))[[2]]
        made, want = plain(last().params[k]), plain(master.astype(jnp.bfloat16))
        want = want.astype(np.float32)
        assert made.dtype == np.float32
        step = 1e-3 * (1 + 5 * 2**-8) + 2.0**-8 * np.abs(old)  # Adam in bfloat16
        assert (np.abs(made - old) <= step).all()
        assert (made == want).mean() > 0.98  # elsewhere the gradient's sum cancels
        lost = np.abs(old) > 1e-3 * 2**9
        assert (made[lost] == old[lost]).all() and (made != old).any()
