"""The rule that reads the lookup layers off a curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.localizers.ranges import LookupRange

CURVES = st.lists(st.floats(0, 1), min_size=1, max_size=48).map(np.array)


def published(*climb: float, layers: int) -> np.ndarray:
    return np.array([*climb, *[1.0] * (layers - len(climb))])


@pytest.mark.parametrize(
    ("curve", "layers"),
    [
        (published(0.44, 0.48, 0.63, 0.85, 0.97, 0.97, layers=28), (2, 7)),
        (published(0.50, 0.57, 0.73, 0.97, 0.99, layers=42), (2, 6)),
        (published(0.42, 0.63, 0.92, layers=32), (1, 4)),
    ],
    ids=["gemma-7b", "gemma2-9b", "llama3-8b"],
)
def test_a_margin_of_one_gives_the_authors_layers(curve, layers):
    found = LookupRange(margin=1)(curve, floor=0.374, n=100)
    assert (found.first, found.last) == layers
    assert found.plateau == 1.0 and not found.flat
    assert found.extraction == found.extraction_first == len(curve)


@given(
    curve=CURVES,
    floor=st.floats(0, 1),
    n=st.integers(1, 1000),
    margin=st.integers(0, 3),
    with_end=st.booleans(),
    data=st.data(),
)
def test_the_range_lies_inside_the_network(curve, floor, n, margin, with_end, data):
    end = None
    if with_end:
        same = st.lists(st.floats(0, 1), min_size=len(curve), max_size=len(curve))
        end = np.array(data.draw(same))
    found = LookupRange(margin=margin)(curve, floor=floor, n=n, end=end)
    assert 0 <= found.first <= found.last < len(curve)
    assert 0 <= found.extraction_first <= found.extraction <= len(curve)
    assert found.plateau <= curve.max() + 1e-12


@given(curve=CURVES, floor=st.floats(0, 1), n=st.integers(1, 1000))
def test_only_the_monotone_envelope_counts(curve, floor, n):
    rule = LookupRange()
    envelope = np.maximum.accumulate(curve)
    found, same = rule(curve, floor=floor, n=n), rule(envelope, floor=floor, n=n)
    assert found[:-1] == same[:-1]


@given(curve=CURVES, floor=st.floats(0, 1), n=st.integers(1, 1000))
def test_a_larger_margin_only_moves_the_last_layer(curve, floor, n):
    small, large = (LookupRange(margin=m)(curve, floor=floor, n=n) for m in (0, 1))
    assert small.first == large.first
    assert small.last <= large.last <= small.last + 1


def test_noise_is_no_climb():
    """Of flat curves the envelope always climbs; one in a hundred may be taken for one.

    As a random model's are: accuracies around the floor, of the same 200 subjects.
    """
    rng, taken = np.random.default_rng(0), 0
    for _ in range(300):
        floor, *curve = rng.binomial(200, 0.4, size=13) / 200
        taken += not LookupRange()(np.array(curve), floor=max(floor, 0.4), n=200).flat
    assert taken <= 3


def test_a_flat_curve_is_said_to_be_one():
    curve = np.full(12, 0.44)
    found = LookupRange()(curve, floor=0.41, n=400)
    assert found.flat == (
        "the probe's curve ends at 0.44, what the tokens alone give away is 0.41,"
        " and 2 standard errors are 0.07"
    )
    assert not LookupRange()(curve, floor=0.30, n=400).flat
    assert LookupRange()(curve, floor=0.30, n=50).flat


def test_what_shuffled_labels_give_too_is_no_climb():
    curve = np.array([0.4, 0.6, 0.7, 0.7, 0.7, 0.7])
    rule = LookupRange()
    assert not rule(curve, floor=0.4, n=400, control=np.full(6, 0.4)).flat
    found = rule(curve, floor=0.4, n=400, control=np.array([0.4] * 3 + [0.68] * 3))
    assert "what probes of shuffled labels read is 0.68" in found.flat


def test_layers_behind_the_extraction_do_not_count():
    curve = np.array([0.4, 0.6, 0.8, 0.8, 0.8, 1.0, 1.0, 1.0])
    end = np.array([0.3, 0.3, 0.3, 0.3, 0.9, 0.9, 0.9, 0.9])
    found = LookupRange()(curve, floor=0.35, n=400, end=end)
    assert found.extraction == 4
    assert found.plateau == pytest.approx(0.8)
    assert (found.first, found.last) == (1, 2)


def test_extraction_is_the_jump_of_the_end():
    subject = np.array([0.5, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    end = np.array([0.4, 0.4, 0.45, 0.4, 0.4, 0.5, 0.7, 0.85, 0.9, 0.9])
    found = LookupRange()(subject, floor=0.4, n=10_000, end=end)
    assert (found.extraction_first, found.extraction) == (6, 8)
    later = LookupRange()(subject, floor=0.4, n=10_000, end=np.array([0.4, *end[:-1]]))
    assert (later.extraction_first, later.extraction) == (7, 9)


def test_a_rise_of_the_end_before_the_lookup_is_no_extraction():
    subject = np.array([0.4, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9])
    end = np.array([0.4, 0.7, 0.7, 0.7, 0.7, 0.7, 0.85, 0.95])
    found = LookupRange()(subject, floor=0.4, n=10_000, end=end)
    assert found.last == 3
    assert (found.extraction_first, found.extraction) == (6, 7)


def test_an_end_that_rises_in_steps_is_extracted_where_it_jumps_last():
    """Gemma 3 270M on 450 athletes."""
    climb = [0.61, 0.60, 0.71, 0.78, 0.81, 0.85, 0.87, 0.87, 0.87, 0.89, 0.89, 0.89]
    rise = [0.61, 0.58, 0.59, 0.61, 0.68, 0.65, 0.80, 0.82, 0.81, 0.81, 0.84, 0.88]
    subject, end = np.array(climb + [0.93] * 6), np.array(rise + [0.98] * 6)
    found = LookupRange()(subject, floor=0.60, n=450, end=end)
    assert (found.extraction_first, found.extraction) == (11, 12)
