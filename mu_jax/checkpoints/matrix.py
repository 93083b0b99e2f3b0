"""Matrices that others store as [outputs, inputs], read in our axes, in part.

Ours are [inputs..., outputs...] with an axis for groups, heads and projection each;
theirs merge those into one. A slice of our axes is then one block of their rows and
columns, or several where an outer axis is cut as well as an inner one.
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


def inputs(label: str) -> int:
    """How many of the leading axes of a matrix of ours are its inputs."""
    return 3 if label == "attention/output" else 1


def stored(label: str, axes: Sequence[int]) -> tuple[int, ...]:
    """The shape in which others store one layer of ours with these axes."""
    if not is_matrix(label):
        return tuple(axes)
    n = inputs(label)
    return math.prod(axes[n:]), math.prod(axes[:n])


def read(block: Block, label: str, axes: Sequence[int], index: Index) -> np.ndarray:
    """The part `index` of a matrix with our `axes`, from the blocks that hold it."""
    n = inputs(label)
    columns = list(blocks(axes[:n], index[:n]))
    rows = list(blocks(axes[n:], index[n:]))
    pieces = [[block(r, c) for c in columns] for r in rows]
    whole = pieces[0][0] if len(rows) == len(columns) == 1 else np.block(pieces)
    return whole.T.reshape(lengths(axes, index))


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
