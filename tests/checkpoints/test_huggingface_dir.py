"""Hugging Face directories: `transformers` opens them; a copy changes its edit only."""

import dataclasses
import json
import shutil
import warnings

import jax
import jax.numpy as jnp
import made_pieces
import numpy as np
import pytest
from rounding import double
from safetensors.numpy import load_file, save_file

from mu_jax.checkpoints.huggingface import directory as huggingface_dir
from mu_jax.checkpoints.huggingface.config import config
from mu_jax.checkpoints.huggingface.names import tensor_name, tensors
from mu_jax.checkpoints.safetensors_file import places, write_shards
from mu_jax.errors import UserError
from mu_jax.model.params import name_axes
from mu_jax.model.specs import SPECS
from mu_jax.model.tokenizer import from_files
from mu_jax.selectors import Layers
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec
from mu_jax.types import Edit

SPECIFICATIONS = {
    "gemma1": tiny_spec(1, kv_heads=4, layers=3),
    "gemma2": tiny_spec(2, kv_heads=2, layers=3),
    "gemma3": tiny_spec(3, kv_heads=1, layers=7),
    "llama": tiny_llama(layers=3),
    "llama-tied": dataclasses.replace(
        tiny_llama(layers=2), tied=True, rope_stretch=None
    ),
}


@pytest.fixture(scope="module")
def torch_logits():
    """(folder, tokens) -> logits of the model that `transformers` opens there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import AutoModelForCausalLM

    def logits(folder, tokens) -> np.ndarray:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager"
        )
        with torch.no_grad():
            return model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()

    return logits


def edit_of(model, scale=0.02) -> Edit:
    chosen = Layers(mlp=(1,), attn=(0, 2))(None, model.sizes)
    selection = dataclasses.replace(chosen, name="flu")
    rng = np.random.default_rng(7)
    params = {}
    for label, array in model.selected(selection).items():
        plain = np.asarray(array.unwrap(*array.named_shape), np.float32)
        moved = plain + scale * rng.standard_normal(plain.shape, np.float32)
        params[label] = name_axes(label, moved, model.spec)
    return Edit(selection, params, [])


def our_logits(model, tokens) -> np.ndarray:
    @jax.jit
    def run(params, tokens):
        stream, _ = model.network.stream(params, tokens, jnp.ones(tokens.shape, bool))
        return model.network.logits(params, stream)

    with jax.enable_x64(True):
        return np.asarray(run(double(model).params, tokens))


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_transformers_gives_the_same_logits(quick, torch_logits, tmp_path, name):
    model = tiny_model(SPECIFICATIONS[name], seed=1)
    huggingface_dir.write(tmp_path, model)
    draw = np.random.default_rng(0).integers(3, model.spec.vocabulary, (2, 90))
    ours, theirs = our_logits(model, draw), torch_logits(tmp_path, draw)
    assert np.abs(theirs).max() > 1
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=2e-5)


def test_published_llama_configs():
    long = config(SPECS["llama3.1-8b"], "bfloat16")
    assert (
        long["architectures"] == ["LlamaForCausalLM"]
        and not long["tie_word_embeddings"]
    )
    assert long["rope_theta"] == 500_000 and long["rms_norm_eps"] == 1e-5
    assert long["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert config(SPECS["llama3-8b"], "bfloat16")["rope_scaling"] is None
    assert config(SPECS["smollm2-135m"], "float32")["tie_word_embeddings"]


@pytest.mark.parametrize(
    "changes", [{"final_softcap": 30.0}, {"scaled_embeddings": True}, {"qk_norm": True}]
)
def test_a_llama_that_transformers_does_not_know_is_refused(changes):
    with pytest.raises(UserError, match="that Llama does not have"):
        config(dataclasses.replace(tiny_llama(), **changes), "float32")
    with pytest.raises(UserError, match="that Gemma does not have"):
        config(dataclasses.replace(tiny_spec(3), tied=False), "float32")


def test_a_dtype_rounds_everything_once(tmp_path, tiny):
    huggingface_dir.write(tmp_path, tiny, "bfloat16")
    found = load_file(tmp_path / "model.safetensors")
    exact = dict(tensors(tiny.spec, tiny.params))
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        np.testing.assert_array_equal(found[name], value.astype(jnp.bfloat16))
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["dtype"] == "bfloat16" and said["bos_token_id"] == tiny.tokenizer.bos


def test_transformers_ends_where_we_do(tmp_path, tiny):
    """By the config of the export, and by what a GGUF said of ends."""
    from transformers import GenerationConfig

    words = from_files(
        {
            "tokenizer.model": made_pieces.proto(),
            "generation_config.json": b'{"eos_token_id": [1, 5]}',
        }
    )
    huggingface_dir.write(tmp_path, dataclasses.replace(tiny, tokenizer=words))
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["eos_token_id"] == list(words.ends) == [1, 5]
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [1, 5]


# ---- over a Hugging Face directory


@pytest.fixture(params=["bfloat16", "float32"])
def base(request, tmp_path, tiny):
    """A base of three shards with everything that lies about in such directories."""
    folder = tmp_path / "base"
    folder.mkdir()
    huggingface_dir.write(folder, tiny, request.param)
    (folder / "model.safetensors").unlink()
    total = tensors(tiny.spec, tiny.params, jnp.dtype(request.param))
    write_shards(folder, total, shard=120_000)
    (folder / "README.md").write_text("a base")
    (folder / "tokenizer.json").write_bytes(b"\x00\xff")
    (folder / "pytorch_model.bin").write_text("the unedited weights again")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_text("and again")
    (folder / "original" / "params.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    return folder


def files(folder):
    found = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def patched(folder, base, model, edit):
    folder.mkdir()
    return huggingface_dir.patch(folder, base, model.spec, edit)


def test_a_copy_is_byte_identical_but_for_the_edited_tensors(tmp_path, base, tiny):
    edit = edit_of(tiny)
    left_out = patched(tmp_path / "out", base, tiny, edit)
    assert left_out == ["original/consolidated.00.pth", "pytorch_model.bin"]
    before, after = files(base), files(tmp_path / "out")
    assert after.keys() == before.keys() - {*left_out, ".git/config"}
    edited = {
        tensor_name(tiny.spec, label, layer)
        for label, layers in edit.selection.tensors
        for layer in layers
    }
    wanted = dict(tensors(tiny.spec, tiny.update(edit).params))
    seen = set()
    for name, content in after.items():
        if not name.endswith(".safetensors"):
            assert content == before[name], name
            continue
        mended, stored = bytearray(content), load_file(tmp_path / "out" / name)
        for tensor, place in places(base / name).items():
            if tensor in edited:
                seen.add(tensor)
                value = stored[tensor]
                np.testing.assert_array_equal(value, wanted[tensor].astype(value.dtype))
                where = slice(place.start, place.start + value.nbytes)
                assert mended[where] != before[name][where]
                mended[where] = before[name][where]
        assert mended == before[name], name
    assert seen == edited


def test_an_edit_that_changes_nothing_gives_the_base(tmp_path, base, tiny):
    patched(tmp_path / "out", base, tiny, edit_of(tiny, scale=0.0))
    before = files(base)
    assert all(before[k] == v for k, v in files(tmp_path / "out").items())


def test_links_become_files(tmp_path, base, tiny):
    blobs = base.rename(tmp_path / "blobs")
    base.mkdir()
    for path in blobs.iterdir():
        if path.is_file():
            (base / path.name).symlink_to(path)
    before = files(blobs)
    patched(tmp_path / "out", base, tiny, edit_of(tiny))
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))
    assert files(blobs) == before


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_models_that_see_are_patched_under_their_names(tmp_path, tiny, prefix):
    base, edit = tmp_path / "base", edit_of(tiny)
    base.mkdir()
    text = {
        prefix + name.removeprefix("model."): value
        for name, value in tensors(tiny.spec, tiny.params)
    }
    strange = "vision_tower.encoder.layers.1.mlp.up_proj.weight"
    text[strange] = np.ones((48, 32), np.float32)
    save_file(text, base / "model.safetensors")
    patched(tmp_path / "out", base, tiny, edit)
    found = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name, value in found.items() if (value != text[name]).any()}
    assert len(changed) == sum(len(layers) for _, layers in edit.selection.tensors)
    assert all(name.startswith(prefix) for name in changed)


def test_a_directory_of_another_model_is_refused(tmp_path, base, tiny):
    edit, other = edit_of(tiny), tiny_model(dataclasses.replace(tiny.spec, neurons=64))
    shutil.rmtree(base)
    base.mkdir()
    huggingface_dir.write(base, other)
    with pytest.raises(UserError, match=r"mlp\.down_proj\.weight of shape \[32, 64\]"):
        patched(tmp_path / "out", base, tiny, edit)
    shutil.rmtree(base)
    base.mkdir()
    huggingface_dir.write(base, tiny_model(tiny_spec(2, layers=1)))
    with pytest.raises(UserError, match=r"base has no tensor model\.layers\.\d"):
        patched(tmp_path / "other", base, tiny, edit)
    assert list((tmp_path / "other").iterdir()) == []
