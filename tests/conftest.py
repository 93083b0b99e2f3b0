"""Strictness for every test, and the real model once a session."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

import small_run

import mu_jax as mu
from mu_jax.testing import tiny_model


@pytest.fixture(scope="module")
def quick():
    """Programs compiled fast rather than to be fast, for modules that compile a lot."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def tiny():
    """A random Gemma 3 in miniature."""
    return tiny_model()


@pytest.fixture(scope="session")
def gemma():
    """The real Gemma 3 270M."""
    return mu.load("gemma3-270m")


@pytest.fixture(scope="session")
def smollm():
    """The real SmolLM2 135M, of Llama 3's architecture."""
    return mu.load("smollm2-135m")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small run made by one undisturbed process: its config and its directory."""
    folder = tmp_path_factory.mktemp("small")
    config = small_run.write(folder)
    args = ["run", str(config), "--runs", str(folder / "one")]
    small_run.ended(small_run.start(args, folder / "cache"))
    return config, folder / "one" / "small"
