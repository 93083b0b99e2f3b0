"""Assumed lengths: never shorter than a real tokenizer's, and never sharing more."""

import pytest

from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.sports import Sports
from mu_jax.facts.tokens import prompts, shared_prefix
from mu_jax.plan.lengths import assumed, shipped


@pytest.mark.parametrize("source", [Sports(), CounterFact()], ids=["sports", "facts"])
def test_a_real_tokenizer_needs_no_more(gemma, source):
    facts = source.load()
    for template in source.templates:
        questions = [q for fact in facts for q in template.questions(fact)][:400]
        length = assumed(questions)
        longest = max(len(gemma.tokenizer.encode(q.text).ids) for q in questions)
        assert longest <= length.width <= 2 * longest + 8, template.name
        if template.name == "train":
            real = prompts(questions, gemma.tokenizer)
            assert length.prefix <= shared_prefix(real)
            assert length.options == real.options.shape[1]


def test_paths_are_not_read():
    assert shipped(CounterFact(path="nobody/nothing", forget=4)) == CounterFact(
        forget=4
    )
