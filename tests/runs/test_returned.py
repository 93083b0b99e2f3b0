"""What a method hands over: taken where it can be kept, else refused in one line."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.runs import returned
from mu_jax.selectors.selections import components
from mu_jax.types import Edit, Fact, Facts, Known, Row, Scores, Selection, Site

FACTS = tuple(
    Fact(f"f/{i}", f"Tower{i}", "city", " Paris", " Rome", f"Tower{i} is in")
    for i in range(3)
)
KNOWN = Facts(tuple(Known(fact, "forget", 0.9) for fact in FACTS))
WHERE = {"split": "forget", "prompt": "train", "model": "m", "eval": "e"}


def row(metric="letters", values=(1.0, 2.0), **more):
    return Row.of(np.asarray(values), **WHERE, metric=metric, **more)


def changed(fact, **fields):
    return (*FACTS[:2], dataclasses.replace(fact, **fields))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "not iterable"),
        (changed(FACTS[2], id=7), "7 is no text"),
        (changed(FACTS[2], id="f/0"), "the fact 'f/0' 2 times"),
        (changed(FACTS[2], prompt="elsewhere", start=0), "no 'Tower2' at 0"),
        ((1, 2), "1 is no object"),
    ],
)
def test_facts(given, said):
    assert returned.facts(list(FACTS), "Mine") == FACTS
    with pytest.raises(UserError, match=said):
        returned.facts(given, "Mine")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no attribute 'known'"),
        (Facts((*KNOWN.known, Known(FACTS[0], "retain", 0.5))), "'f/0' 2 times"),
        (Facts((Known(FACTS[0], None, 0.5),)), "None is no text"),
        (Facts((Known(changed(FACTS[0], id="x")[2], "a", 0.5),)), "splits 'x'"),
    ],
)
def test_splits(given, said):
    asked = {fact.id for fact in FACTS}
    assert returned.splits(KNOWN, asked, "Mine") == KNOWN
    with pytest.raises(UserError, match=said):
        returned.splits(given, asked, "Mine")


def test_scores():
    values = {Site(0, "mlp"): np.float32(0.5), Site(1, "mlp"): jnp.float32(2)}
    found = returned.scores(Scores("mine", values), "mine", 2)
    assert found.values == {Site(0, "mlp"): 0.5, Site(1, "mlp"): 2.0}
    for bad in (
        None,
        Scores("mine", {Site(2, "mlp"): 1.0}),
        Scores("mine", {Site(0, "mlp"): float("nan")}),
        Scores("mine", {Site(0, "mlp"): 1.0}, {"map": [[1.0]]}),
    ):
        with pytest.raises(UserError, match="the scores of the localizer 'mine'"):
            returned.scores(bad, "mine", 2)


def test_selections(tiny):
    mlp = components([Site(1, "mlp")], tiny.sizes, "mine")
    assert returned.selection(mlp, "a", tiny.sizes).name == "a"
    for bad in (
        None,
        dataclasses.replace(mlp, origin=7),
        dataclasses.replace(mlp, tensors=()),
        dataclasses.replace(mlp, tensors=(("mlp/nothing", (1,)),)),
        dataclasses.replace(mlp, tensors=((mlp.tensors[0][0], (99,)),)),
    ):
        with pytest.raises(UserError, match="the selection 'a'"):
            returned.selection(bad, "a", tiny.sizes)
    with pytest.raises(UserError, match="of kind 'resid'"):
        components([Site(1, "resid")], tiny.sizes, "mine")


def made(before, **fields):
    params = {label: array * 0.5 for label, array in before.items()}
    edit = Edit(Selection("s", (), 0), params, [{"step": 1, "loss": jnp.float32(2)}])
    return edit._replace(**fields)


def test_edits(tiny):
    before = tiny.selected(components([Site(1, "mlp")], tiny.sizes, "mine"))
    assert returned.edit(made(before), "it", before).history == [
        {"step": 1, "loss": 2.0}
    ]
    label, *_ = before
    half = made(before).params
    for fields, said in (
        ({"history": []}, "no record"),
        ({"history": ["x"]}, "no object"),
        ({"history": [{"step": "one"}]}, "no number"),
        ({"history": [{"step": 1}, {"loss": 2.0}]}, "loss after step"),
        ({"params": dict(before)}, "changes nothing"),
        ({"params": {**half, "more": half[label]}}, "more beside its selection"),
        ({"params": {**half, label: half[label].astype(int)}}, "as int32"),
        ({"params": {**half, label: half[label] * np.nan}}, "is not finite"),
        ({"params": {k: v for k, v in half.items() if k != label}}, "the axes {}"),
    ):
        with pytest.raises(UserError, match=said):
            returned.edit(made(before, **fields), "it", before)
    with pytest.raises(UserError, match="NoneType"):
        returned.edit(None, "it", before)


def test_rows():
    of = {"model": "x", "eval": "mine"}
    (found,) = returned.rows([row()], "it", **of)
    assert (found.model, found.eval, found.values) == ("x", "mine", (1.0, 2.0))
    two = [row(seed=0), row(seed=1), row("other"), row(at="step=1")]
    assert len(returned.rows(two, "it", **of)) == 4
    for bad, said in (
        (None, "not iterable"),
        ([], "none"),
        ([row(), row()], "2 of forget train letters"),
        ([dataclasses.replace(row(), split=1)], "1 is no text"),
        ([dataclasses.replace(row(), share=True)], "shares from"),
    ):
        with pytest.raises(UserError, match=said):
            returned.rows(bad, "it", **of)


def test_a_row_is_made_of_one_number_a_fact():
    for values in (1.0, [[1.0, 2.0]], []):
        with pytest.raises(ValueError, match="not one a fact"):
            row(values=values)
    for values in ([0.5, 1.1], [-0.1, 0.5]):
        with pytest.raises(ValueError, match="shares from"):
            row(values=values, share=True)


def test_measurements_are_as_many_as_of_the_unedited_model():
    of = {"model": "x", "eval": "e"}
    assert returned.measurements([row()], "it", [row()], **of)
    assert returned.measurements([row()], "it", [row("other", [1.0])], **of)
    for values in ([1.0], [1.0, np.nan]):
        with pytest.raises(UserError, match="expected 2 numbers"):
            returned.measurements([row(values=values)], "it", [row()], **of)
