"""Matrices that others store as [outputs, inputs], read in our axes, in part.

Ours have an axis for groups, heads and projection each; theirs merge those into one. A
slice of our axes is then one block of their rows and columns, or several where an outer
axis is cut as well as an inner one. Most of ours are [inputs..., outputs...]; queries,
keys and values have their one input, `embedding`, before `projection`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Index = tuple[slice, ...]
Block = Callable[[slice, slice], np.ndarray]
"""Reads (rows, columns) of a stored matrix."""


def is_matrix(label: str) -> bool:
    """Whether a parameter is stored transposed; norms and tables are not."""
    return label.startswith(("attention/", "mlp/")) and not label.endswith("norm")


def input_axes(label: str, n: int) -> tuple[int, ...]:
    """Which of the `n` axes of one layer of a matrix of ours are its inputs."""
    if label == "attention/output":
        return tuple(range(n - 1))
    return (n - 2,)


def stored(label: str, axes: Sequence[int]) -> tuple[int, ...]:
    """The shape in which others store one layer of ours with these axes."""
    if not is_matrix(label):
        return tuple(axes)
    inputs = input_axes(label, len(axes))
    size = math.prod(axes[i] for i in inputs)
    return math.prod(axes) // size, size


def read(block: Block, label: str, axes: Sequence[int], index: Index) -> np.ndarray:
    """The part `index` of a matrix with our `axes`, from the blocks that hold it."""
    inputs = input_axes(label, len(axes))
    outputs = tuple(i for i in range(len(axes)) if i not in inputs)
    of = lambda items, chosen: tuple(items[i] for i in chosen)
    columns = list(blocks(of(axes, inputs), of(index, inputs)))
    rows = list(blocks(of(axes, outputs), of(index, outputs)))
    pieces = [[block(r, c) for c in columns] for r in rows]
    whole = pieces[0][0] if len(rows) == len(columns) == 1 else np.block(pieces)
    order = (*inputs, *outputs)
    value = whole.T.reshape(of(lengths(axes, index), order))
    return value.transpose(np.argsort(order))


def lengths(axes: Sequence[int], index: Index) -> tuple[int, ...]:
    """The shape of the part `index` of an array with these axes."""
    ranges = zip(index, axes, strict=True)
    return tuple(len(range(*cut.indices(size))) for cut, size in ranges)


def blocks(axes: Sequence[int], index: Index) -> Iterator[slice]:
    """The runs of one merged axis that the slices `index` of `axes` cover, in order."""
    ranges = [range(*cut.indices(size)) for cut, size in zip(index, axes, strict=True)]
    whole = [len(r) == size for r, size in zip(ranges, axes, strict=True)]
    inner = max((i for i, w in enumerate(whole) if not w), default=0)
    inside = math.prod(axes[inner + 1 :])
    for outer in itertools.product(*ranges[:inner]):
        start = 0
        for position, size in zip(outer, axes, strict=False):
            start = start * size + position
        start = start * axes[inner] + ranges[inner].start
        yield slice(start * inside, (start + len(ranges[inner])) * inside)
