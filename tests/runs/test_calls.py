"""What a method of one's own raises is said to be its own, and where."""

import dataclasses

import pytest

from mu_jax import inputs
from mu_jax.devices.preemption import Preempted
from mu_jax.errors import UserError
from mu_jax.localizers.probes import Probes
from mu_jax.runs import own
from mu_jax.runs.calls import Failed, called
from mu_jax.selectors import Top

TEXT = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Mine:
    x: int = 1
    def __call__(self, what):
        return what()

def missing():
    open("nowhere")
"""


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(TEXT)
    return own.module(path)


def divide():
    return 1 / 0


def test_its_line_is_named(theirs):
    mine = theirs.Mine()
    with pytest.raises(Failed) as error, called("localizers.mine", mine):
        mine(divide)
    said = str(error.value)
    assert said.startswith("localizers.mine: Mine fails with ZeroDivisionError: ")
    assert "line 8 of theirs.py, in __call__" in said
    lost = pytest.raises(Failed, match="Mine fails with FileNotFoundError")
    with lost, called("x", mine):
        mine(theirs.missing)


def test_a_part_of_ones_own_counts(theirs):
    @dataclasses.dataclass(frozen=True)
    class Holds:
        loss: object

    Holds.__module__ = "mu_jax.made"
    lost = pytest.raises(Failed, match="edit: Mine fails")
    with lost, called("edit", Holds(theirs.Mine())):
        divide()


@pytest.mark.parametrize("error", [Preempted(), KeyboardInterrupt()])
def test_what_is_nobodys_fault_passes(theirs, error):
    def stop():
        raise error

    with pytest.raises(type(error)) as found, called("x", theirs.Mine()):
        theirs.Mine()(stop)
    assert found.value is error


def test_what_was_refused_is_said_with_its_place():
    refused = pytest.raises(UserError, match=r"^selections\.top: a budget")
    with refused as found, called("selections.top", Top()):
        raise UserError("a budget")
    assert not isinstance(found.value, Failed)


def test_the_machines_errors_stay_the_machines(theirs, tmp_path):
    with pytest.raises(FileNotFoundError), called("x", theirs.Mine()):
        theirs.Mine()(lambda: inputs.read(tmp_path / "nothing"))


def test_of_our_own_methods_nothing_is_said():
    with pytest.raises(ZeroDivisionError), called("x", Probes()):
        divide()
