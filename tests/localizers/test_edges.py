"""Edges: each is a derivative along one path, and together they are the nodes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EMBED, LOGITS, EdgeAttribution, Edges
from mu_jax.localizers.metrics import LogitDiff
from mu_jax.localizers.patching import Inputs, record
from mu_jax.model.network import Network, take_last
from mu_jax.model.params import name_axes, shapes
from mu_jax.types import Site

pytestmark = pytest.mark.usefixtures("quick", "float64")
METHOD = EdgeAttribution(steps=0, batch=2)
MOVED = ("query", "key", "value", "mlp_in", "resid")


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(request, of_generation, pair):
    model = of_generation(request.param)
    return model, METHOD.edges(model, *pair)


@pytest.fixture(scope="module")
def third(model, pair):
    return METHOD.edges(model, *pair)


def test_a_nodes_edges_add_up_to_its_score(found, pair):
    model, edges = found
    nodes = edges.nodes()
    scores = AttributionPatching(kinds=("head", "mlp"), batch=5)(model, *pair)
    assert nodes.keys() == {EMBED, *map(str, scores.values)}
    for site, value in scores.values.items():
        assert abs(nodes[str(site)] - value) < 1e-9, site
    assert max(map(abs, scores.values.values())) > 0.05


def test_there_is_an_edge_wherever_the_writer_comes_first(third):
    def order(name):
        if name in (EMBED, LOGITS):
            return (-1,) if name == EMBED else (99,)
        layer, kind, *_ = name.split(".")
        return int(layer), kind == "mlp"

    assert third.scores.shape == (1 + 7 * 5, 7 * (4 + 2 + 2 + 1) + 1)
    for writer, row in zip(third.writers, third.scores, strict=True):
        for reader, score in zip(third.readers, row, strict=True):
            assert np.isnan(score) == (order(writer) >= order(reader))
    at = lambda w, r: third.scores[third.writers.index(w), third.readers.index(r)]
    assert np.isfinite(at("3.head.0", "3.mlp")) and np.isnan(at("3.mlp", "3.query.0"))
    assert np.isnan(at("3.head.0", "3.query.1")) and np.isnan(at("3.mlp", "3.mlp"))
    assert np.isfinite(at("6.mlp", LOGITS)) and np.isfinite(at(EMBED, "0.key.1"))


# One edge at a time


def rms(model, x, label, layer=None):
    scale = np.asarray(model.params[label].data_array)
    scale = scale if layer is None else scale[layer]
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + model.spec.norm_epsilon) * scale


def turned(model, x, layer):
    """Rotary embedding of [batch, seq, ..., projection]."""
    half = x.shape[-1] // 2
    wave = model.spec.wavelengths[layer] ** (np.arange(half) / half)
    angle = np.arange(x.shape[1])[:, None] / wave / model.spec.rope_scales[layer]
    angle = angle.reshape(len(angle), *[1] * (x.ndim - 3), half)
    a, b = x[..., :half], x[..., half:]
    sin, cos = np.sin(angle), np.cos(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def weight_of(model, label, layer):
    return np.asarray(model.params[label].data_array[layer], np.float64)


def heads_read(model, kind, layer, x):
    """[batch, seq, head or group, projection] what attention makes of the stream."""
    normed = rms(model, x, "pre_attention_norm", layer)
    weight = weight_of(model, f"attention/{kind}", layer)
    made = np.tensordot(normed, weight, axes=([-1], [-2]))
    made = made.reshape(*made.shape[:2], -1, model.spec.projection)
    if kind != "value":
        if model.spec.qk_norm:
            made = rms(model, made, f"attention/{kind}_norm", layer)
        made = turned(model, made, layer)
    return made * model.spec.query_scale if kind == "query" else made


def heads_write(model, layer, z):
    weight = weight_of(model, "attention/output", layer)
    weight = weight.reshape(model.spec.heads, model.spec.projection, -1)
    y = np.einsum("bshp,hpe->bse", z, weight)
    post = model.spec.post_norms
    return rms(model, y, "post_attention_norm", layer) if post else y


@functools.partial(jax.jit, static_argnames=("network",))
def shifted(network, params, prompts, shift):
    stream, _ = network.stream(params, prompts.tokens, prompts.valid, shift=shift)
    ends = take_last(stream, prompts.last)
    return LogitDiff()(network, params, ends, prompts, np.zeros((5, 0))).sum()


@pytest.fixture(scope="module")
def slowly(found, pair):
    """The score of an edge: the stream is read with and without a little of a write."""
    model, _ = found
    kinds = ("resid", "head", "mlp", *MOVED[:4])
    runs = [
        record(model.network, model.params, Inputs(side), kinds=kinds, prefix=0)[1]
        for side in pair
    ]
    clean, corrupt = (jax.tree.map(np.asarray, reads) for reads in runs)
    table = np.asarray(model.params["embedder"].data_array)
    embedded = [table[p.tokens] * np.sqrt(model.spec.embedding) for p in pair]
    entering = [embedded[0], *clean["resid"]]
    zero = {kind: np.zeros_like(clean[kind]) for kind in MOVED}

    def f(shift):
        made = shifted(model.network, model.params, pair[0], {**zero, **shift})
        return float(made)

    resid = corrupt["resid"][6] - clean["resid"][6]
    last = {"resid": np.concatenate([zero["resid"][:6], resid[None]])}
    gap = f({}) - f(last)

    def write(writer):
        if writer == EMBED:
            return embedded[1] - embedded[0]
        layer, kind, *unit = writer.split(".")
        change = corrupt[kind][int(layer)] - clean[kind][int(layer)]
        if kind == "mlp":
            return change
        alone = np.zeros_like(change)
        alone[:, :, int(unit[0])] = change[:, :, int(unit[0])]
        step, z = 1e-5, clean["head"][int(layer)]
        up, down = (
            heads_write(model, int(layer), z + h * alone) for h in (step, -step)
        )
        return (up - down) / (2 * step)

    def read(reader, moved):
        if reader == LOGITS:
            return "resid", 6, moved
        layer, kind, *unit = reader.split(".")
        layer = int(layer)
        if kind == "mlp":
            return "mlp_in", layer, moved
        x = entering[layer]
        change = heads_read(model, kind, layer, x + moved)
        change = change - heads_read(model, kind, layer, x)
        alone = np.zeros_like(change)
        alone[:, :, int(unit[0])] = change[:, :, int(unit[0])]
        return kind, layer, alone

    def score(writer, reader, step=1e-5):
        values = []
        for h in (step, -step):
            kind, layer, change = read(reader, h * write(writer))
            shift = zero[kind].copy()
            shift[layer] = change
            values.append(f({kind: shift}))
        return (values[0] - values[1]) / (2 * step) / gap

    return score


@pytest.mark.parametrize(
    "reader", ["3.query.3", "3.key.1", "3.value.0", "3.mlp", LOGITS]
)
def test_an_edge_is_the_derivative_along_its_path(found, slowly, reader):
    _, edges = found
    for writer in (EMBED, "1.head.2", "1.mlp", "2.mlp"):
        place = edges.writers.index(writer), edges.readers.index(reader)
        want, got = slowly(writer, reader), edges.scores[place]
        # The embeddings do not differ at the end, which alone reaches the logits.
        assert (want == 0) == ((writer, reader) == (EMBED, LOGITS))
        scale = np.nanmax(np.abs(edges.scores))
        assert abs(got - want) < 1e-6 * scale, (writer, reader)


# Grouped queries


def ungrouped(model):
    """The same function with a key and a value of its own for every head."""
    old = model.spec
    spec = dataclasses.replace(old, head_groups=old.heads, query_heads=1)
    params = dict(model.params)
    for label in ("query", "key", "value", "output"):
        name = f"attention/{label}"
        value = model.params[name].unwrap(*model.params[name].named_shape)
        if label in ("key", "value"):
            axis = list(shapes(old)[name]).index("head_groups")
            value = np.repeat(value, old.query_heads, axis=axis)
        value = np.reshape(value, tuple(shapes(spec)[name].values()))
        params[name] = name_axes(name, jax.numpy.asarray(value), spec)
    return dataclasses.replace(model, network=Network(spec), params=params)


def test_a_groups_edges_are_those_of_its_heads(model, pair, third):
    single = ungrouped(model)
    runs = [
        record(m.network, m.params, Inputs(pair[0]), kinds=("resid",), prefix=4)
        for m in (model, single)
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-12), *runs)
    edges = METHOD.edges(single, *pair)
    assert edges.writers == third.writers

    def members(reader):
        if ".key." not in reader and ".value." not in reader:
            return [reader]
        kind, group = reader.rsplit(".", 1)
        return [f"{kind}.{2 * int(group) + i}" for i in range(2)]

    for column, reader in enumerate(third.readers):
        own = [edges.readers.index(name) for name in members(reader)]
        got = edges.scores[:, own].sum(axis=1)
        np.testing.assert_allclose(got, third.scores[:, column], rtol=0, atol=1e-12)


# Integrated gradients


def test_the_embeddings_edges_tend_to_the_whole_effect(model, pair):
    errors = {}
    for steps in (1, 4, 16, 64):
        edges = dataclasses.replace(METHOD, steps=steps).edges(model, *pair)
        errors[steps] = abs(edges.nodes()[EMBED] + 1)
    assert errors[1] > errors[4] > errors[16] > 10 * errors[64]
    assert errors[64] < 1e-3


# What is kept


def test_the_largest_edges_come_first(third):
    top = third.top(50)
    sizes = [abs(score) for *_, score in top]
    assert sizes == sorted(sizes, reverse=True)
    finite = np.sort(np.abs(third.scores[np.isfinite(third.scores)]))
    assert sizes == finite[::-1][:50].tolist()
    for writer, reader, score in top:
        place = third.writers.index(writer), third.readers.index(reader)
        assert third.scores[place] == score
    assert len(third.top(10**6)) == len(finite)
    tiny = Edges(["a", "b"], ["c", "d"], np.array([[1.0, -3.0], [np.nan, 2.0]]))
    assert tiny.top(2) == [["a", "d", -3.0], ["b", "d", 2.0]]
    assert tiny.nodes() == {"a": -2.0, "b": 2.0}


def test_the_scores_are_the_nodes_and_the_largest_edges(model, pair, third):
    scores = dataclasses.replace(METHOD, keep=20)(model, *pair)
    nodes = third.nodes()
    assert scores.notes["embed"] == nodes.pop(EMBED)
    assert scores.values == {Site.parse(name): v for name, v in nodes.items()}
    assert scores.notes["edges"] == third.top(20)


def test_bad_input_is_refused(model, pair):
    with pytest.raises(UserError, match=r"steps -1; expected 0 .EAP. or more"):
        EdgeAttribution(steps=-1)
    with pytest.raises(UserError, match="as many rows of as many tokens"):
        METHOD.edges(model, pair[0], pair[1].rows(slice(3)))
    with pytest.raises(UserError, match="same logit difference"):
        METHOD.edges(model, pair[0], pair[0])
