"""Arithmetic of costs against programs as they are traced, and what a bound says."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.step import update
from mu_jax.model.network import Network
from mu_jax.model.params import random, sizes
from mu_jax.model.specs import gemma1
from mu_jax.plan import costs
from mu_jax.plan.chips import CHIPS
from mu_jax.plan.lengths import Lengths
from mu_jax.selectors import Layers
from mu_jax.types import Prompts

SPEC = gemma1(
    "small",
    layers=3,
    embedding=256,
    neurons=512,
    heads=4,
    kv_heads=2,
    projection=64,
    vocabulary=1024,
)
LENGTH = Lengths(rows=8, width=32, prefix=0, options=2)
EDIT = GradientEdit(forget_batch=4, retain_batch=4, text_batch=4)
SELECTION = Layers(mlp=(1, 2))(None, sizes(SPEC))


def prompts(rows: int) -> Prompts:
    tokens = np.zeros((rows, LENGTH.width), np.int32)
    each = np.zeros(rows, np.int32)
    valid = np.ones(tokens.shape, bool)
    return Prompts(tokens, valid, ~valid, each, each, np.zeros((rows, 2), np.int32))


def products(jaxpr) -> float:
    """FLOPs of the matrix products of a program as traced; a loop's, each time round.

    The compiler's own count has a loop's body once, and where loops are written out it
    may leave out what they would compute for nothing.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            ((summed, _), _) = eqn.params["dimension_numbers"]
            terms = math.prod(eqn.invars[0].aval.shape[axis] for axis in summed)
            total += 2.0 * terms * math.prod(eqn.outvars[0].aval.shape)
        assert eqn.primitive.name != "while", "how often a loop runs is not known"
        inner = sum(map(products, jaxprs_in_params(eqn.params)))
        total += eqn.params.get("length", 1) * inner
    return total


def test_a_forward_pass_costs_the_products_it_is_made_of(monkeypatch):
    network, params = Network(SPEC), random(SPEC, 0)
    want = costs.forward(SPEC, 8, LENGTH).flops

    def logits(params, tokens):
        stream, _ = network.stream(params, tokens)
        return network.logits(params, stream[:, -1])

    got = products(jax.jit(logits).trace(params, prompts(8).tokens).jaxpr.jaxpr)
    # Norms sum squares by a product, too.
    assert want <= got <= 1.01 * want
    scan = functools.partial(jax.lax.scan, unroll=True)
    monkeypatch.setattr(jax.lax, "scan", scan)
    lowered = jax.jit(lambda *args: logits(*args)).lower(params, prompts(8).tokens)
    # So does the compiler count; norms, softmax and GELU come on top.
    assert got <= lowered.cost_analysis()["flops"] <= 1.1 * want


@pytest.mark.parametrize("remat", [False, True])
def test_an_edit_step_costs_the_products_it_is_made_of(remat):
    network, params = Network(SPEC), random(SPEC, 0)
    edit = dataclasses.replace(EDIT, remat=remat)
    state = jax.eval_shape(functools.partial(edit.begin, SELECTION), params)
    text = np.zeros((4, 24), np.int32)
    batch = edit.batch(0, prompts(4), prompts(4), text)
    rest = (params, state, batch, edit.rate(0, SELECTION))
    got = products(update.trace(edit.program, network, SELECTION, 0, *rest).jaxpr.jaxpr)
    want = costs.step(SPEC, edit, SELECTION, LENGTH, 24).flops
    assert want <= got <= 1.01 * want


def test_an_edit_lower_down_costs_more():
    step = lambda *mlp: costs.step(
        SPEC, EDIT, Layers(mlp=mlp)(None, sizes(SPEC)), LENGTH, 24
    )
    assert step(0).flops > step(1).flops > step(2).flops
    assert step(0, 2).flops > step(0).flops
    assert step(0).passes > step(2).passes


def test_parts_read_the_weights_once_each():
    parts = GradientEdit(forget_batch=4, retain_batch=4, text_batch=4, accumulate=4)
    one, four = (costs.step(SPEC, e, SELECTION, LENGTH, 24) for e in (EDIT, parts))
    assert four.passes == 4 * one.passes
    assert four.flops == one.flops


def test_time_is_bounded_by_the_slowest_part():
    chip, work = CHIPS["v5e"], costs.Work(197e12, 1.0)
    mesh = lambda **n: SimpleNamespace(shape={"data": 1, "fsdp": 1, "tensor": 1} | n)
    bytes_of_all = 2 * SPEC.layers * costs.matrices(SPEC)
    alone = costs.seconds(work, SPEC, 2, mesh(), chip)
    assert alone["compute"] == pytest.approx(1.0)
    assert alone["memory"] == pytest.approx(bytes_of_all / chip.bandwidth)
    assert alone["links"] == 0  # a chip alone gathers nothing
    four = costs.seconds(work, SPEC, 2, mesh(fsdp=4), chip)
    assert four["compute"] == pytest.approx(0.25)
    assert four["memory"] == alone["memory"]  # every device reads every layer
    assert four["links"] == pytest.approx(0.75 * bytes_of_all / chip.links)


def test_collectives_are_counted_once_each():
    text = """
  %a = f32[8] all-gather-start(%x), channel_id=1, replica_groups={}
  %b = f32[8] all-gather-done(%a), channel_id=1
  %c = f32[8] all-reduce(%x), channel_id=2
  %d = f32[8] all-reduce(%x), channel_id=2, in=a_copy_of_the_loop
  %e = f32[8] all-reduce(%x), channel_id=3
  %f = f32[8] fusion(%x), calls=%all-reduce-like
"""
    assert costs.collectives(text) == {"all-gather": 1, "all-reduce": 2}
