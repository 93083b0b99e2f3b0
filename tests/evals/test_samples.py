"""Samples are what `generate` says, under the names that put them side by side."""

import dataclasses
import json

import pytest

import mu_jax as mu
from mu_jax.errors import UserError
from mu_jax.evals.samples import Samples
from mu_jax.facts.tokens import padded
from mu_jax.model.generate import generate
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Facts, Known

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def source():
    return mu.Sports()


@pytest.fixture(scope="module")
def facts(source):
    splits = ["forget"] * 3 + ["retain"] * 3 + ["heldout"]
    known = zip(source.load(), splits, strict=False)
    return Facts(tuple(Known(fact, split, 1.0) for fact, split in known))


def test_a_few_facts_of_each_split_in_every_format(tiny, source, facts):
    formats = source.templates[:2]
    found = Samples(per_split=2, length=3, batch=2)(tiny, "odd", facts, formats)
    asked = [*facts.forget[:2], *facts.split("heldout")]
    assert [(s.prompt, s.split, s.fact) for s in found] == [
        (form.name, split, fact.id)
        for form in formats
        for split, fact in zip(["forget", "forget", "heldout"], asked, strict=True)
    ]
    assert {s.model for s in found} == {"odd"}
    # The toy decodes only what it has seen; what it says is otherwise the model's.
    ids = [tiny.tokenizer.encode(sample.asked).ids for sample in found]
    said = generate(tiny, *padded(ids, tiny.tokenizer.pad, 50), 3)
    assert [s.said for s in found] == [tiny.tokenizer.decode(row) for row in said]
    lines = [json.dumps(dataclasses.asdict(sample)) for sample in found]
    assert [json.loads(line)["said"] for line in lines] == [s.said for s in found]


def test_a_sample_ends_at_any_end_token(tiny, source, facts):
    """And what pads it then is no part of it, even where that is a word."""
    words = lambda ids: " ".join(map(str, map(int, ids)))
    how = {"per_split": 1, "splits": ("forget",), "length": 3, "batch": 1}
    said = []
    for ends in ((), (509, 510)):
        tokenizer = ToyTokenizer()
        tokenizer.decode = words
        tokenizer.ends = (*ends, int(said[0].split()[0])) if said else ends
        model = dataclasses.replace(tiny, tokenizer=tokenizer)
        [found] = Samples(**how)(model, "odd", facts, source.templates[:1])
        said.append(found.said)
    assert len(said[0].split()) == 3 and said[1] == ""


@pytest.mark.parametrize("name", ["per_split", "length", "batch"])
def test_nothing_to_say_is_refused(name):
    with pytest.raises(UserError, match=f"{name} 0; expected at least 1"):
        Samples(**{name: 0})
