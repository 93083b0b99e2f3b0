"""float32 is float32: how exactly the products of a program are taken, on a TPU too."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mu_jax as mu
from mu_jax.attacks.soft_adapter import SoftAdapter
from mu_jax.console import Console
from mu_jax.edits.lora import LoRA
from mu_jax.errors import UserError
from mu_jax.localizers.metrics import KL
from mu_jax.model.network import Network
from mu_jax.model.precision import products
from mu_jax.plan.chips import topology
from mu_jax.plan.plan import EFFORT
from mu_jax.plan.programs import programs
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.runs.run import Run
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_model

LOCALIZERS = {
    "paths": mu.PathPatching(rows=4),
    "edges": mu.EdgeAttribution(rows=4, batch=2),
    "kl": mu.CausalTracing(metric=KL(), rows=4),
    "attribution": mu.AttributionPatching(rows=4, batch=2),
}


def planned(**own) -> dict:
    """The programs of the tiny run, every kind of localizer among them, on one chip."""
    tiny = load("configs/tiny.py")
    every = {**tiny.localizers, **LOCALIZERS}
    config = dataclasses.replace(tiny, localizers=every, **own)
    return {p.name: p for p in programs(config, topology("v5e:1"))}


def asked(text: str) -> set[str]:
    """What the products of a lowered program ask for."""
    dots = [line for line in text.splitlines() if "dot_general" in line]
    return {re.search(r"precision = \[(\w+), (\w+)\]", line)[1] for line in dots}


def test_every_product_of_a_float32_run_is_float32():
    for name, program in planned().items():
        assert asked(program.lower().as_text()) == {"HIGHEST"}, name


def test_a_run_may_ask_for_less():
    some = planned(precision="high")["evaluate"]
    assert asked(some.lower().as_text()) == {"HIGH"}
    half = planned(dtype="bfloat16")["evaluate"]
    assert asked(half.lower().as_text()) == {"DEFAULT"}


@pytest.mark.parametrize("name", ["facts", "edit early"])
def test_the_compiler_of_the_tpu_takes_six_passes(name):
    """No bfloat16 is anywhere; every product asks for the highest precision."""
    program = planned()[name]
    text = program.lower().compile({"optimization_level": EFFORT}).as_text()
    dots = [s for s in text.splitlines() if re.search(r" (dot|convolution)\(", s)]
    assert len(dots) > 10 and "bf16[" not in text
    assert all("operand_precision={highest,highest}" in line for line in dots)


def test_what_is_computed_around_a_network_is_exact(tiny):
    """Factors of low rank, and a soft adapter: beside the network's own products."""
    network = dataclasses.replace(tiny.network, precision="default")
    selection = Layers(mlp=(1,))(None, tiny.sizes)
    lora = LoRA(rank=2)
    adapter = SoftAdapter()
    rng = np.random.default_rng(0)

    def changed(params):
        return lora.tensors(lora.variables(params, selection), params, selection)

    def shifted(stream):
        return adapter.shift(adapter.variables(tiny.spec, rng), stream)

    stream = jnp.zeros((2, 3, tiny.spec.embedding))
    for run, given in ((changed, tiny.params), (shifted, stream)):
        assert asked(jax.jit(run).lower(given).as_text()) == {"HIGHEST"}
    logits = jax.jit(network.logits).lower(tiny.params, stream)
    assert asked(logits.as_text()) == {"DEFAULT"}


def test_a_model_takes_its_precision_along():
    assert mu.load("tiny").network.precision == "highest"
    assert mu.load("tiny", dtype="bfloat16").network.precision == "default"
    assert mu.load("tiny", precision="high").network.precision == "high"
    assert Network(tiny_model().spec).precision == "highest"
    with pytest.raises(UserError, match="precision = 'exact'; expected one of default"):
        products("float32", "exact")  # pyright: ignore[reportArgumentType]


def test_a_run_depends_on_it():
    config = load("configs/tiny.py")
    of = lambda c: Run(c, RunDir(Path("nowhere")), Console()).fingerprint("facts")
    other = dataclasses.replace(config, precision="default")
    same = dataclasses.replace(config, precision="highest")
    assert of(config) == of(same) != of(other)
