"""What a program costs, by arithmetic: matrix products, and the weights it moves.

Norms, activations and softmax are left out (under 2 % at these sizes), so that the time
is a lower bound: no run can be faster than its slowest part,

    max(FLOPs / peak, bytes read / memory bandwidth, bytes gathered / links)

Every pass over the network reads its weights once, however few rows there are.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

from mu_jax.edits.gradient import GradientEdit
from mu_jax.model.params import sizes
from mu_jax.model.specs import Spec
from mu_jax.plan.chips import Chip
from mu_jax.plan.lengths import Lengths
from mu_jax.types import Selection


class Work(NamedTuple):
    """flops: of all devices together. passes: over all layers' weights.

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


def forward(spec: Spec, rows: int, length: Lengths, spelled: int | None = None) -> Work:
    """One pass over prompts, with the logits of `spelled` positions (one a row)."""
    own = rows * (length.width - length.prefix)
    flops = layers(spec, own, length.width)
    flops += layers(spec, length.prefix, length.prefix)
    flops += unembedding(spec, rows if spelled is None else spelled)
    return Work(flops, 1 + bool(length.prefix))


def reading(spec: Spec, rows: int, length: int) -> Work:
    """One pass over general text, with all logits."""
    flops = layers(spec, rows * length, length) + unembedding(spec, rows * (length - 1))
    return Work(flops, 1)


def step(
    spec: Spec, edit: GradientEdit, selection: Selection, length: Lengths, text: int
) -> Work:
    """One optimiser step.

    The backward pass goes down to the lowest edited layer; it has as many products as
    the forward pass (attention twice as many), and those of the edited tensors' own
    gradients over every layer from the lowest to the highest edited one.
    """
    asked = edit.forget_batch + edit.retain_batch
    parts = edit.accumulate
    streams = [
        (asked * (length.width - length.prefix), length.width),
        (parts * length.prefix, length.prefix),
        (edit.text_batch * text, text),
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
    flops += 2 * unembedding(spec, asked + edit.text_batch * (text - 1))
    share = (1 + edit.remat) * above / spec.layers
    passes = parts * sum(tokens > 0 for tokens, _ in streams) * (1 + share)
    return Work(flops, passes, selection.n_params)


def seconds(work: Work, spec: Spec, width: int, mesh, chip: Chip) -> dict[str, float]:
    """The three lower bounds of one call; `width` is a weight's bytes.

    Layers are gathered over fsdp where they are used: each device reads all of them
    but for what tensor parallelism takes away.
    """
    devices = math.prod(mesh.shape.values())
    read = work.passes * spec.layers * matrices(spec) * width / mesh.shape["tensor"]
    states = 6 * 4 * work.updates / (mesh.shape["fsdp"] * mesh.shape["tensor"])
    far = 1 - 1 / mesh.shape["fsdp"]
    return {
        "compute": work.flops / devices / chip.flops,
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
