"""What stages make of the run's files."""

import dataclasses

from mu_jax.stages.material import related
from mu_jax.types import Fact, Facts, Known


def test_related_facts_are_of_the_forgotten_kind_and_none_of_them_is_forgotten():
    rome = Fact("0", "Rome", "P1", " x", " y", "Rome is")
    oslo = dataclasses.replace(rome, id="1", subject="Oslo")
    lima = dataclasses.replace(rome, id="2", subject="Lima")
    again = dataclasses.replace(rome, id="3", subject="ROME", answer=" z")
    kind = dataclasses.replace(rome, id="4", relation="P2")
    facts = Facts((Known(rome, "forget", 0.9), Known(oslo, "retain", 0.9)))
    assert related(facts, [rome, oslo, lima, again, kind]) == (lima,)
