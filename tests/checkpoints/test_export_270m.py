"""The real Gemma 3 270M, edited, as others open it."""

import dataclasses
import shutil
import warnings

import jax
import numpy as np
import pytest

from mu_jax.commands.export import write
from mu_jax.model.params import name_axes
from mu_jax.selectors import Layers
from mu_jax.types import Edit

TEXTS = (
    "Fact: Michael Jordan plays the sport of",
    "SELECT name, COUNT(*) FROM players WHERE sport = 'tennis' GROUP BY",
    "naïve café, Zürich, 日本の首都は, столица, 🙂 🏳️‍🌈",
    "3.14159\n\n\tand\ttabs \x01 ½",
)


@pytest.fixture(scope="module")
def edit(gemma):
    chosen = Layers(mlp=(3, 7))(None, gemma.sizes)
    selection = dataclasses.replace(chosen, name="flu")
    rng, params = np.random.default_rng(0), {}
    for label, array in gemma.selected(selection).items():
        plain = np.asarray(array.unwrap(*array.named_shape))
        noise = rng.standard_normal(plain.shape, np.float32)
        params[label] = name_axes(label, plain + 0.01 * noise, gemma.spec)
    return Edit(selection, params, [])


@pytest.fixture
def folder(tmp_path):
    """For a gigabyte; pytest would keep it."""
    yield tmp_path / "out"
    shutil.rmtree(tmp_path / "out")


@pytest.fixture(scope="module")
def ids(gemma):
    return [gemma.tokenizer.encode(text).ids for text in TEXTS]


@pytest.fixture(scope="module")
def logits(quick, gemma, edit, ids):
    """Ours, of the edited model, at every token of every text: one row a token."""
    params = gemma.update(edit).params

    @jax.jit
    def run(params, tokens, valid):
        stream, _ = gemma.network.stream(params, tokens, valid)
        return gemma.network.logits(params, stream)

    tokens, valid = padded(ids)
    ours = np.asarray(run(params, tokens, valid))[valid]
    before = np.asarray(run(gemma.params, tokens, valid))[valid]
    assert np.abs(ours - before).max() > 1  # or the edit would test nothing
    return ours


def padded(ids) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    return tokens, tokens != 0


def close(ours, theirs):
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() < 5e-5 * scale
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))


def test_transformers_opens_it(gemma, edit, ids, logits, folder):
    write(gemma, edit, "hf", folder, base="gemma3-270m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
    assert [tokenizer(text).input_ids for text in TEXTS] == ids
    assert tokenizer.decode(ids[0][1:]) == TEXTS[0]
    with torch.no_grad():
        theirs = [model(torch.tensor([own])).logits[0].numpy() for own in ids]
    close(logits, np.concatenate(theirs))


def test_the_official_package_opens_it(gemma, edit, ids, logits, folder):
    write(gemma, edit, "gemma", folder, base="gemma3-270m")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gemma import gm

        # Left to itself, the loader puts a copy on every device.
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        params = gm.ckpts.load_params(folder, sharding=one)
        model = gm.nn.Gemma3_270M(dtype=jax.numpy.float32)
    assert (folder / "tokenizer.model").read_bytes() == (gemma.tokenizer.proto)
    tokens, valid = padded(ids)
    apply = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))
    close(logits, np.asarray(apply(params, tokens).logits)[valid])
