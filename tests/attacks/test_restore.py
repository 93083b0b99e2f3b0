"""Tensors put back: all of them are the original, others are no change."""

import numpy as np
import pytest
from noisy_victim import EDITED, made

from mu_jax.attacks.restore import GROUPS, Restore, restored
from mu_jax.errors import UserError
from mu_jax.types import Selection


@pytest.fixture(scope="module")
def victim(tiny):
    return made(tiny)


def equal(a, b, label):
    return np.array_equal(
        np.asarray(a.params[label].order_as(*b.params[label].named_shape).data_array),
        np.asarray(b.params[label].data_array),
    )


def points(victim, *groups):
    return dict(Restore(groups=groups).points(victim.selection))


def test_all_put_back_is_the_original_bit_for_bit(victim):
    tensors = dict(victim.selection.tensors)
    whole = restored(victim.model, victim.original, tensors)
    for label in victim.original.params:
        assert equal(whole, victim.original, label), label


def test_a_layer_that_was_not_edited_is_no_change(victim):
    tensors = dict.fromkeys(dict(victim.selection.tensors), (0, 3))
    same = restored(victim.model, victim.original, tensors)
    for label in victim.model.params:
        assert equal(same, victim.model, label), label
    assert not equal(same, victim.original, "mlp/up")


def test_each_group_puts_back_its_own(victim):
    low, high = EDITED
    mlp = ("mlp/down", "mlp/gate", "mlp/up")
    assert points(victim, "layer") == {
        f"layer={i}": dict.fromkeys(mlp, (i,)) for i in EDITED
    }
    assert points(victim, "tensor") == {
        f"layer={i} tensor={label}": {label: (i,)} for i in EDITED for label in mlp
    }
    assert points(victim, "below", "above") == {
        f"layers<={low}": dict.fromkeys(mlp, (low,)),
        f"layers>={high}": dict.fromkeys(mlp, (high,)),
    }  # all of both is the original, which is no attack


def test_of_one_edited_tensor_nothing_less_can_be_put_back():
    one = Selection("one", (("mlp/down", (2,)),), 1)
    assert not dict(Restore(groups=GROUPS).points(one))


@pytest.mark.parametrize("groups", [(), ("layers",)])
def test_an_unknown_group_is_refused(groups):
    with pytest.raises(UserError):
        Restore(groups=groups)
