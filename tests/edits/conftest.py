"""Every generation in miniature, and four facts to write into it."""

import pytest

from mu_jax.facts.sports import Sports
from mu_jax.facts.text import Text
from mu_jax.facts.tokens import prompts
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec


@pytest.fixture(scope="module")
def small(request):
    """The random model that a test module asks for; Gemma 2 and 3 have post-norms."""
    if request.param == "llama3":
        return tiny_model(tiny_llama(layers=4))
    return tiny_model(tiny_spec(int(request.param[-1]), layers=4))


@pytest.fixture(scope="session")
def told(tiny):
    """Four facts, prompts to keep, and text; the tiny models share a vocabulary."""
    source = Sports(forget=4)
    found = source.split([(fact, 1.0) for fact in source.load()[:12]])
    asked = [source.templates[0](f) for f in (*found.forget, *found.retain)]
    both = prompts(asked, tiny.tokenizer)
    text, _ = Text(length=16).load(tiny.tokenizer)
    return both.rows(slice(4)), both.rows(slice(4, None)), text[:40]


@pytest.fixture(scope="session")
def ending(told, tiny):
    """The same, of prompts that end with their subjects.

    In a random model nothing else reaches the answer but by chance.
    """
    source = Sports()
    asked = prompts([source.alone(f) for f in source.load()[:12]], tiny.tokenizer)
    return asked.rows(slice(4)), asked.rows(slice(4, None)), told[2]


@pytest.fixture(scope="module")
def middle(small):
    """The MLPs of layers 1 and 2."""
    return Layers(mlp=(1, 2))(None, small.sizes)
