"""LoRA: a low-rank change beside each matrix, and nothing as large as the matrix."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz
from rounding import double

from mu_jax import selectors
from mu_jax.edits import losses
from mu_jax.edits.lora import LoRA
from mu_jax.model.params import summed
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec

pytestmark = pytest.mark.usefixtures("quick")
KNOBS = {"learning_rate": 2e-2, "forget_batch": 4, "retain_batch": 4, "text_batch": 1}


@pytest.fixture(scope="module")
def selection(tiny):
    chosen = selectors.Layers(mlp=(2, 3), attn=(3,))(None, tiny.sizes)
    return dataclasses.replace(chosen, name="chosen")


def plain(array) -> np.ndarray:
    return np.array(array.unwrap(*array.named_shape))


def changes(model, edit) -> dict[tuple[str, int], np.ndarray]:
    """(label, layer) -> what the edit adds to that matrix."""
    out = {}
    for label, layers in edit.selection.tensors:
        old = plain(model.params[label])[list(layers)]
        for layer, change in zip(layers, plain(edit.params[label]) - old, strict=True):
            out[label, layer] = change
    return out


@pytest.fixture(scope="module")
def steps(tiny, told, selection):
    how = LoRA(steps=4, rank=2, loss=losses.NPO(), **KNOBS)
    return [step() for step in how.walk(tiny, selection, *told)]


def test_it_begins_with_the_model_itself(tiny, steps):
    assert all((change == 0).all() for change in changes(tiny, steps[0]).values())


def test_every_matrix_changes_by_its_rank(tiny, steps):
    for (label, _), change in changes(tiny, steps[-1]).items():
        reads = {"attention/output": 3, "mlp/down": 1}.get(label, 1)
        if label in ("attention/query", "attention/key", "attention/value"):
            change = np.moveaxis(change, -2, 0)  # embedding first, heads behind
        matrix = change.reshape(int(np.prod(change.shape[:reads])), -1)
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values[1] > 0 and (values[2:] < 1e-4 * values[0]).all(), label


def test_it_forgets(steps):
    history = steps[-1].history
    assert history[-1]["forget"] < history[0]["forget"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("spec", [tiny_spec(3, layers=4), tiny_llama()])
def test_beside_a_matrix_or_in_it_is_the_same(spec):
    """x W + (x A) B = x (W + A B), and so are its derivatives; the rest stays."""
    model = double(tiny_model(spec))
    chosen = selectors.Layers(mlp=(1,), attn=(0, 2))(None, model.sizes)
    how = LoRA(rank=3, alpha=6.0)
    rng = np.random.default_rng(0)
    trained = {
        label: jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.2, a.shape)), factor)
        for label, factor in how.variables(model.params, chosen).items()
    }
    tokens, aim = rng.integers(2, 100, (2, 9)), rng.normal(size=(2, 9, spec.embedding))

    def loss(how_applied, trained):
        edited = how_applied(trained, model.params, chosen)
        run = model.network.stream(
            model.params, tokens, selection=chosen, edited=edited
        )
        return (run[0] * aim).sum()

    def merged(trained, params, chosen):
        made = how.tensors(trained, params, chosen)
        wide = {k: a.astype(jnp.float64) for k, a in model.params.items() if k in made}
        exact, scale = {}, how.alpha / how.rank
        for label in made:
            a, b = (trained[f"{label}.{end}"].untag("rank") for end in ("in", "out"))
            layers = np.asarray(dict(chosen.tensors)[label])
            old = wide[label][{"layer": pz.nx.wrap(layers).tag("layer")}]
            exact[label] = (old + scale * pz.nx.nmap(jnp.dot)(a, b)).order_as(
                *model.params[label].named_shape
            )
        return exact

    beside, inside = (
        jax.value_and_grad(lambda t, f=f: loss(f, t))(trained)
        for f in (how.applied, merged)
    )
    np.testing.assert_allclose(beside[0], inside[0], rtol=1e-10)
    for label in trained:
        got, want = (plain(found[1][label]) for found in (beside, inside))
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())
    plain_run = model.network.stream(model.params, tokens)[0]
    assert abs(beside[0] - (plain_run * aim).sum()) > 1e-3


def test_factors_are_drawn_as_in_the_original(tiny, selection):
    """Uniform within 1/sqrt(in), zero behind; another seed draws others."""
    drawn, other = (
        LoRA(rank=16, seed=seed).variables(tiny.params, selection) for seed in (0, 1)
    )
    firsts = []
    for label, _ in selection.tensors:
        inside = math.prod(tiny.params[label].named_shape[a] for a in summed(label))
        a = plain(drawn[f"{label}.in"]) * math.sqrt(inside)
        assert 0.97 < np.abs(a).max() <= 1 and abs(a.mean()) < 0.1
        assert a.std() == pytest.approx(1 / math.sqrt(3), rel=0.1)
        assert (plain(drawn[f"{label}.out"]) == 0).all()
        assert (a != plain(other[f"{label}.in"]) * math.sqrt(inside)).any()
        firsts.append(a.ravel()[:8])
    assert len({tuple(f) for f in firsts}) == len(firsts)


def test_nothing_as_large_as_a_matrix_is_made(told):
    """A bfloat16 model has no float32 array with both ends of a matrix in its shape."""
    spec = tiny_spec(3, layers=3)
    model = tiny_model(spec)
    params = {
        k: a.astype(jnp.bfloat16) if not k.endswith("norm") else a
        for k, a in model.params.items()
    }
    model = dataclasses.replace(model, params=params)
    chosen = selectors.Layers(mlp=(1, 2))(None, model.sizes)
    how = LoRA(rank=2, **KNOBS)
    trained = how.variables(model.params, chosen)
    batch = how.batch(0, *told)
    step = lambda t: how.gradient(t, model.network, chosen, 0, model.params, batch)
    both = {spec.embedding, spec.neurons}
    made = [shape for shape in _wide(jax.make_jaxpr(step)(trained)) if both <= {*shape}]
    assert not made
    whole = dataclasses.replace(how, rank=spec.embedding)  # would be seen
    there = whole.tensors(whole.variables(model.params, chosen), model.params, chosen)
    assert any(both <= {*a.named_shape.values()} for a in there.values())


def _wide(jaxpr) -> list[tuple[int, ...]]:
    """The shapes of all float32 arrays that a program makes, loops and all."""
    found = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found += [
            tuple(var.aval.shape)
            for var in equation.outvars
            if getattr(var.aval, "dtype", None) == jnp.float32
        ]
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                found += _wide(inner)
    return found
