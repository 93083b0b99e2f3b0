"""Settings that make no sense, alone or together, are refused."""

import dataclasses

import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import GaussianNoise
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.probes import Probes
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.runs.config import Config
from mu_jax.selectors import AllMLPs, FactLookup, PathLookup, Top


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x y"])
def test_names_that_are_no_folder_are_refused(name):
    for make in (
        lambda: Config(name),
        lambda: Config("x", selections={name: AllMLPs()}),
        lambda: Config("x", localizers={name: Probes()}, selections={}),
    ):
        with pytest.raises(UserError, match="name of a folder"):
            make()


def test_the_unedited_models_name_is_taken():
    with pytest.raises(UserError, match="'unedited'"):
        Config("x", selections={"unedited": AllMLPs()})


@pytest.mark.parametrize(
    ("localizers", "said"),
    [
        ({"probes": Probes()}, "one of the localizers probes"),
        ({}, "one of the localizers (none)"),
    ],
)
def test_a_selection_by_scores_that_nothing_makes_is_refused(localizers, said):
    for selector in (Top("tracing"), PathLookup("tracing"), FactLookup("tracing")):
        with pytest.raises(UserError) as error:
            Config("x", localizers=localizers, selections={"ct": selector})
        assert "'ct' selects by the scores of 'tracing'" in str(error.value)
        assert said in str(error.value)


@pytest.mark.parametrize("budget", ["ct", "later", "nothing"])
def test_a_budget_that_is_no_earlier_selection_is_refused(budget):
    selections = {
        "flu": FactLookup(),
        "ct": Top("attribution", budget=budget),
        "later": AllMLPs(),
    }
    with pytest.raises(UserError, match="earlier ones: flu"):
        Config("x", selections=selections)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("edit", "steps"),
        ("edit", "forget_batch"),
        ("known", "batch"),
        ("recall", "limit"),
        ("text", "length"),
    ],
)
def test_counts_below_one_are_refused(part, field):
    own = Config("x")
    with pytest.raises(
        UserError, match=rf"{part}\.{field} = 0; expected at least [12]"
    ):
        changed = dataclasses.replace(getattr(own, part), **{field: 0})
        dataclasses.replace(own, **{part: changed})


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: AttributionPatching(rows=0), "rows"),
        (lambda: AttributionPatching(batch=0), "batch"),
        (lambda: Probes(max_subjects=0), "max_subjects"),
        (lambda: Probes(bootstraps=0), "bootstraps"),
        (lambda: CausalTracing(rows=0), "rows"),
        (lambda: CausalTracing(batch=0), "batch"),
        (lambda: EdgeAttribution(batch=0), "batch"),
        (lambda: PathPatching(rows=0), "rows"),
        (lambda: PathPatching(corruption=GaussianNoise(draws=0)), "corruption.draws"),
    ],
)
def test_counts_below_one_are_refused_inside_localizers(make, path):
    with pytest.raises(UserError) as error:
        Config("x", localizers={"mine": make()}, selections={})
    assert str(error.value) == f"localizers.mine.{path} = 0; expected at least 1"
