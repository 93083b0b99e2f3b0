"""Parts of matrices that are stored transposed and with merged axes."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.checkpoints import matrix


@st.composite
def parts(draw):
    """A label, our axes, and slices of them."""
    label = draw(st.sampled_from(["attention/query", "attention/output", "mlp/up"]))
    count = 2 if label == "mlp/up" else 4
    axes = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    index = []
    for size in axes:
        start = draw(st.integers(0, size - 1))
        stop = draw(st.integers(start + 1, size))
        index.append(
            draw(st.sampled_from([slice(None), slice(start, stop), slice(0, size)]))
        )
    return label, axes, tuple(index)


@given(parts())
def test_a_part_is_what_a_slice_of_the_whole_would_be(drawn):
    label, axes, index = drawn
    whole = np.arange(math.prod(axes)).reshape(axes)
    first = np.moveaxis(whole, 2, 0) if label == "attention/query" else whole
    n = 3 if label == "attention/output" else 1
    theirs = first.reshape(math.prod(first.shape[:n]), -1).T
    asked = []

    def block(rows, columns):
        asked.append(theirs[rows, columns].size)
        return theirs[rows, columns]

    found = matrix.read(block, label, axes, index)
    np.testing.assert_array_equal(found, whole[index])
    assert sum(asked) == found.size  # and nothing else was read
    assert theirs.shape == matrix.stored(label, axes)


def test_heads_of_one_group_are_one_block():
    cut = (slice(None), slice(2, 4), slice(None))
    assert list(matrix.blocks((1, 8, 16), cut)) == [slice(32, 64)]
    assert len(list(matrix.blocks((3, 8, 16), cut))) == 3
