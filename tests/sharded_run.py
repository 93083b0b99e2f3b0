"""Scores, a selection, an edit and answers of the tiny model on several meshes.

    python sharded_run.py FOLDER 1x2x1 2x2x2 ...     (data x fsdp x tensor)

Writes FOLDER/MESH.npz for each of them, 1x1x1.npz for one device without a layout, and
exact.npz for that one in float64 (which XLA cannot spread over devices).
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
from rounding import double

import mu_jax as mu
from mu_jax.devices.sharding import Mesh, fetch
from mu_jax.evals.recall import answers
from mu_jax.localizers.patched_runs import Cell
from mu_jax.model.network import Network
from mu_jax.model.params import name_axes
from mu_jax.testing import tiny_model, tiny_spec
from mu_jax.types import Site

SPEC = tiny_spec(3, heads=8, kv_heads=2)
EDIT = mu.GradientEdit(steps=2, forget_batch=8, retain_batch=8, text_batch=8)


def spread(model, mesh: str):
    """The model on a mesh over the first devices."""
    sizes = [int(n) for n in mesh.split("x")]
    layout = Mesh(*sizes).layout(jax.devices()[: np.prod(sizes)])

    def put(label, array):
        where = layout.weights(array.named_shape)
        plain = jax.device_put(array.unwrap(*array.named_shape), where)
        return name_axes(label, plain, model.spec)

    params = {label: put(label, array) for label, array in model.params.items()}
    network = Network(model.spec, layout)
    return dataclasses.replace(model, network=network, params=params)


def share(tree) -> float:
    """The largest part of a tree's bytes that one device holds."""
    held: dict = {}
    arrays = jax.tree.leaves(tree)
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return max(held.values()) / sum(array.nbytes for array in arrays)


def work(model, rows: int) -> float:
    """FLOPs of one device for a forward pass over so many rows, logits included."""

    def logits(params, tokens):
        stream, _ = model.network.stream(params, tokens)
        return model.network.logits(params, stream[:, -1])

    tokens = np.ones((rows, 12), np.int32)
    compiled = jax.jit(logits).lower(model.params, tokens).compile()
    return compiled.cost_analysis()["flops"]


def measure(model) -> dict[str, np.ndarray]:
    source = mu.Sports(forget=8)
    facts = source.split([(fact, 1.0) for fact in source.load()[:40]])
    train = source.templates[0]
    known = [k.fact for k in facts.known]
    pair = mu.OtherSubject()(known, known, train, model.tokenizer)
    some = slice(8)
    scores = mu.AttributionPatching(rows=16, batch=8)(model, pair.clean, pair.corrupt)
    cells = [Cell((Site(i, kind),)) for i in (0, 3) for kind in ("attn", "mlp")]
    traced, _ = mu.CausalTracing(kinds=("attn", "mlp"), batch=4).trace(
        model, pair.clean.rows(some), pair.corrupt.rows(some), cells
    )
    selection = mu.selectors.Top(kinds=("mlp", "attn"), budget=0.2)(scores, model.sizes)

    asked = [train(f) for f in (*facts.forget, *facts.retain)]
    both = mu.prompts(asked, model.tokenizer)
    forget, keep = both.rows(some), both.rows(slice(8, None))
    text, _ = mu.Text(length=12).load(model.tokenizer)
    start = EDIT.start(model.network, selection, model.params)
    shares = [share(model.params), share(start.edited), share(start.optimizer)]
    edit = EDIT(model, selection, forget, keep, text)
    edited = model.update(edit)
    axes = list(edit.params["mlp/down"].named_shape)
    before, after = (
        fetch(p["mlp/down"].unwrap(*axes)) for p in (start.edited, edit.params)
    )
    return {
        "attribution": np.array(list(scores.values.values())),
        "tracing": traced,
        "selected": np.array([str(part) for part in selection.tensors]),
        "losses": np.array([record["loss"] for record in edit.history]),
        "edit mlp/down": after,
        "change mlp/down": after - before,
        "answers": answers(edited, facts.forget, train, 8)["p_injected"],
        "shares": np.array(shares),
        "work": np.array([work(model, rows) for rows in (16, 18)]),
    }


def main(folder: str, *meshes: str) -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # compiled fast
    model = tiny_model(SPEC)
    with jax.enable_x64(True):
        np.savez(Path(folder, "exact.npz"), **measure(double(model)))
    np.savez(Path(folder, "1x1x1.npz"), **measure(model))
    for mesh in meshes:
        np.savez(Path(folder, f"{mesh}.npz"), **measure(spread(model, mesh)))


if __name__ == "__main__":
    main(*sys.argv[1:])
