"""What a program costs, by arithmetic: matrix products, and the weights it moves.

Norms, activations and softmax are left out (under 2 % at these sizes), so that the time
is a lower bound: no run can be faster than its slowest part,

    max(FLOPs / peak, bytes read / memory bandwidth, bytes gathered / links)

Every pass over the network reads its weights once, however few rows there are.

What is counted is what is computed: rows that fill up a batch for the mesh, and the
prefix that rows share, once on each device that holds rows. A float32 product costs
several bfloat16 ones.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

from mu_jax.devices.sharding import ACTIVATIONS, LOGITS, Layout, Rules
from mu_jax.edits.gradient import GradientEdit
from mu_jax.model.params import sizes
from mu_jax.model.precision import PASSES, Precision
from mu_jax.model.specs import Spec
from mu_jax.plan.chips import Chip
from mu_jax.plan.lengths import Lengths
from mu_jax.types import Selection


class Work(NamedTuple):
    """flops: of all devices together, filled-up rows and repeats among them.

    passes: over all layers' weights.

    updates: float32 parameters that an optimiser steps.
    """

    flops: float
    passes: float
    updates: int = 0

    def times(self, n: float) -> "Work":
        return Work(self.flops * n, self.passes * n, round(self.updates * n))


def matrices(spec: Spec) -> int:
    """Parameters of one layer's matrices."""
    return sum(sizes(spec).tensors.values())


def layers(spec: Spec, tokens: int, keys: int, n: float = -1) -> float:
    """FLOPs of `n` layers (by default all) over tokens that see `keys` keys each."""
    n = spec.layers if n < 0 else n
    attention = 4 * spec.heads * spec.projection * keys
    return n * tokens * (2 * matrices(spec) + attention)


def unembedding(spec: Spec, rows: int) -> float:
    """FLOPs of the logits of as many positions."""
    return 2.0 * rows * spec.vocabulary * spec.embedding


class Spread(NamedTuple):
    """How a layout spreads rows: `whole` counts those computed, `copies` of a prefix.

    By default a single device's.
    """

    layout: Layout | None = None

    def whole(self, rows: int, rules: Rules = ACTIVATIONS) -> int:
        return rows + (self.layout.filler(rows, rules) if self.layout else 0)

    @property
    def copies(self) -> int:
        shape = self.layout.mesh.shape if self.layout else {}
        return math.prod(shape.get(axis, 1) for axis in ACTIVATIONS["batch"])


ALONE = Spread()


def forward(
    spec: Spec,
    rows: int,
    length: Lengths,
    spelled: int | None = None,
    spread: Spread = ALONE,
) -> Work:
    """One pass over prompts, with the logits of `spelled` positions (one a row)."""
    own = spread.whole(rows) * (length.width - length.prefix)
    flops = layers(spec, own, length.width)
    flops += spread.copies * layers(spec, length.prefix, length.prefix)
    spelled = rows if spelled is None else spelled
    flops += unembedding(spec, spread.whole(spelled, LOGITS))
    return Work(flops, 1 + bool(length.prefix))


def reading(spec: Spec, rows: int, length: int, spread: Spread = ALONE) -> Work:
    """One pass over general text, with all logits."""
    flops = layers(spec, spread.whole(rows) * length, length)
    flops += unembedding(spec, spread.whole(rows * (length - 1), LOGITS))
    return Work(flops, 1)


def step(
    spec: Spec,
    edit: GradientEdit,
    selection: Selection,
    length: Lengths,
    text: int,
    spread: Spread = ALONE,
) -> Work:
    """One optimiser step.

    The backward pass goes down to the lowest edited layer; it has as many products as
    the forward pass (attention twice as many), and those of the edited tensors' own
    gradients over every layer from the lowest to the highest edited one.
    """
    parts = edit.accumulate
    asked = (edit.forget_batch + edit.retain_batch) // parts
    read = edit.text_batch // parts
    streams = [
        (
            parts * spread.whole(asked) * (length.width - length.prefix),
            length.width,
        ),
        (parts * spread.copies * length.prefix, length.prefix),
        (parts * spread.whole(read) * text, text),
    ]
    above = spec.layers - selection.layers[0]
    span = selection.layers[-1] + 1 - selection.layers[0]
    own = sum(sizes(spec).tensors[label] for label, _ in selection.tensors)
    flops = 0.0
    for tokens, keys in streams:
        attention = 4 * spec.heads * spec.projection * keys
        flops += layers(spec, tokens, keys)
        flops += (1 + edit.remat) * layers(spec, tokens, keys, above)
        flops += above * tokens * attention + span * tokens * 2 * own
        if edit.remat and not spec.post_norms:  # nothing needs the last product again
            flops -= above * tokens * 2 * sizes(spec).tensors["mlp/down"]
    spelled = spread.whole(asked + read * (text - 1), LOGITS)
    flops += 2 * parts * unembedding(spec, spelled)
    share = (1 + edit.remat) * above / spec.layers
    passes = parts * sum(tokens > 0 for tokens, _ in streams) * (1 + share)
    return Work(flops, passes, selection.n_params)


def seconds(
    work: Work,
    spec: Spec,
    width: int,
    mesh,
    chip: Chip,
    precision: Precision = "default",
) -> dict[str, float]:
    """The three lower bounds of one call; `width` is a weight's bytes.

    A float32 product takes as many of the chip's own as its precision asks for.
    Layers are gathered over fsdp where they are used: each device reads all of them
    but for what tensor parallelism takes away.
    """
    devices = math.prod(mesh.shape.values())
    passes = 1 if width < 4 else PASSES[precision]
    read = work.passes * spec.layers * matrices(spec) * width / mesh.shape["tensor"]
    states = 6 * 4 * work.updates / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    far = 1 - 1 / mesh.shape["fsdp"]
    return {
        "compute": passes * work.flops / devices / chip.flops,
        "memory": (read + states) / chip.bandwidth,
        "links": read * far / chip.links,
    }


_COLLECTIVE = re.compile(
    r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\(.*?channel_id=(\d+)"
)


def collectives(text: str) -> dict[str, int]:
    """How many of each kind a compiled program has; a loop's body counts once."""
    found = {match.groups() for match in _COLLECTIVE.finditer(text)}
    return dict(sorted(Counter(kind for kind, _ in found).items()))
