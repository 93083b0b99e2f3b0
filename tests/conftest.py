"""Strictness for every test; the real models, also edited ones, once a session."""

import contextlib
import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

with contextlib.suppress(ImportError):  # after TensorFlow, torch's compiler crashes
    import triton._C.libtriton  # noqa: F401

import jax
import numpy as np
import psutil
import pytest
from filelock import FileLock

jax.config.update("jax_numpy_rank_promotion", "raise")

import shapes

shapes.enforce()  # of what is imported from here on

import small_run
from limits import HANGS, pytest_xdist_make_scheduler  # noqa: F401  a hook

import mu_jax as mu
from mu_jax.checkpoints import edits
from mu_jax.facts.sports import TRAIN
from mu_jax.load import GEMMA, _source
from mu_jax.runs.directory import RunDir
from mu_jax.testing import tiny_model
from mu_jax.types import Edit, Scores, silent


def pytest_collection_modifyitems(items):
    """Files that load the real 270M come first: they take longest, and would leave one
    of two test processes waiting for the other if they came last."""
    real = {item.path for item in items if "gemma" in item.fixturenames}
    items.sort(key=lambda item: item.path not in real)


@pytest.fixture(autouse=True, scope="module")
def _memory():
    """Compiled programs are kept for ever: thousands of them take gigabytes."""
    yield
    if psutil.Process().memory_info().rss > 5 << 30:
        jax.clear_caches()


@pytest.fixture(scope="module")
def quick():
    """Programs compiled fast rather than to be fast, for modules that compile a lot."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


_WATCHING: list = []


def _audit(event, args):
    for watch in _WATCHING:
        watch(event, args)


sys.addaudithook(_audit)  # there is no taking one away


@pytest.fixture
def audit():
    """`with audit(watch)`: inside, `watch(event, args)` is told what Python does."""

    @contextlib.contextmanager
    def watched(watch):
        _WATCHING.append(watch)
        try:
            yield
        finally:
            _WATCHING.remove(watch)

    return watched


@pytest.fixture
def float64():
    """For laws: what rounds in float32 is the machine's affair."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def tiny():
    """A random Gemma 3 in miniature."""
    return tiny_model()


@pytest.fixture(scope="session")
def gemma():
    """The real Gemma 3 270M."""
    return mu.load("gemma3-270m")


@pytest.fixture(scope="session")
def gemma_tokenizer():
    """Its tokenizer alone: the weights stay where they are."""
    return _source(GEMMA, silent).tokenizer()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def once(path):
    """Whether this test process is the one to make what the others then read.

    What a process began that failed or died is begun anew by the next.
    """
    done = path.with_name(f"{path.name}.done")
    with FileLock(f"{path}.lock", timeout=HANGS):
        yield not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def asked_athletes(gemma, shared):
    """Every shipped athlete, and what probability the 270M gives the true sport."""
    facts, path = mu.Sports().load(), shared / "asked.npy"
    with once(path) as first:
        if first:
            np.save(path, [p for _, p in mu.KnownFilter().ask(gemma, facts, TRAIN)])
    return list(zip(facts, np.load(path).tolist(), strict=True))


@pytest.fixture(scope="session")
def athletes(asked_athletes):
    """Those that the 270M knows, split: 16 of them to be forgotten."""
    return mu.Sports().split(mu.KnownFilter().keep(asked_athletes))


@pytest.fixture(scope="session")
def lookup(gemma, asked_athletes, shared):
    """The fact-lookup MLPs, as the pipeline finds them."""
    probes, source, tokens = mu.Probes(bootstraps=20), mu.Sports(), gemma.tokenizer
    subjects = [fact for fact, p in asked_athletes if p >= probes.threshold]
    found = RunDir(shared / "found")
    with once(found.path) as first:
        if first:
            prompts = {
                "alone": mu.prompts([source.alone(f) for f in subjects], tokens),
                "train": mu.prompts([TRAIN(f) for f in subjects], tokens),
            }
            found.write_scores("probes", probes(gemma, prompts))
    return mu.selectors.FactLookup()(found.read_scores("probes"), gemma.sizes)


@pytest.fixture(scope="session")
def edited_lookup(gemma, athletes, lookup, shared):
    """The 270M, taught other sports in its lookup MLPs (about 75 s on 2 cores)."""
    return taught(gemma, athletes, lookup, shared / "lookup")


@pytest.fixture(scope="session")
def edited_late(gemma, athletes, lookup, shared):
    """The same in as many of the last MLPs: it says them, and still knows better."""
    late = mu.selectors.LateMLPs(budget=lookup.n_params)
    selection = late(Scores("", {}), gemma.sizes)
    return taught(gemma, athletes, selection, shared / "late")


def taught(model, facts, selection, path):
    """The model after the edit that the demo makes; made once for all processes."""
    questions = [TRAIN(f) for f in (*facts.forget, *facts.retain)]
    both, n = mu.prompts(questions, model.tokenizer), len(facts.forget)
    text, _ = mu.Text().load(model.tokenizer)
    forget, keep = both.rows(slice(n)), both.rows(slice(n, None))
    with once(path) as first:
        if first:
            made = mu.GradientEdit()(model, selection, forget, keep, text)
            edits.save(path, dict(made.params))
    params = edits.restore(path, selection, model.spec)
    return model.update(Edit(selection, params, []))


@pytest.fixture(scope="session")
def smollm():
    """The real SmolLM2 135M, of Llama 3's architecture."""
    return mu.load("smollm2-135m")


@pytest.fixture(scope="session")
def small(shared):
    """A small run made by one undisturbed process: its config and its directory."""
    folder = shared / "small"
    with once(folder / "one") as first:
        if first:
            config = small_run.write(folder)
            args = ["run", str(config), "--runs", str(folder / "one")]
            small_run.ended(small_run.start(args, folder / "cache"))
    return folder / "small.py", folder / "one" / "small"
