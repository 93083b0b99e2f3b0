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
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.huggingface.names import tensor_name, tensors
from mu_jax.checkpoints.safetensors_file import places, write_shards
from mu_jax.checkpoints.source import place
from mu_jax.errors import UserError
from mu_jax.model.params import name_axes
from mu_jax.model.releases import SPECS
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


def patched(folder, base, model, edit, **how):
    folder.mkdir()
    return huggingface_dir.patch(folder, base, model.spec, edit, **how)


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
        for tensor, at in places(base / name).items():
            if tensor in edited:
                seen.add(tensor)
                value = stored[tensor]
                np.testing.assert_array_equal(value, wanted[tensor].astype(value.dtype))
                where = slice(at.start, at.start + value.nbytes)
                assert mended[where] != before[name][where]
                mended[where] = before[name][where]
        assert mended == before[name], name
    assert seen == edited


@pytest.mark.parametrize("inside", [False, True])
def test_a_dtype_changes_all_tensors_and_the_config(torch_logits, tmp_path, inside):
    """`transformers`, not told a dtype, then runs what was measured."""
    from transformers import AutoModelForCausalLM

    model = tiny_model(SPECIFICATIONS["gemma3"], seed=1)
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    huggingface_dir.write(base, model, "bfloat16")
    (base / "generation_config.json").write_text('{"do_sample": false}')
    ids = {"position_ids": np.arange(3)}
    tensors_ = {**load_file(base / "model.safetensors"), **(ids if inside else {})}
    (base / "model.safetensors").unlink()
    write_shards(base, tensors_.items(), shard=120_000)
    if inside:  # as older and multimodal configs have it
        said = json.loads((base / "config.json").read_text())
        said["torch_dtype"] = said.pop("dtype")
        said["text_config"] = {"dtype": "bfloat16", "torch_dtype": "bfloat16"}
        (base / "config.json").write_text(json.dumps(said))
    model = dataclasses.replace(
        model, params=place(open_folder(base)) if not inside else model.params
    )
    edit = edit_of(model, scale=1e-4)
    patched(out, base, model, edit, dtype="float32")
    before, after = files(base), files(out)
    same = {k for k in before if before[k] == after[k]}
    assert before.keys() == after.keys() and "generation_config.json" in same
    found = {k: v for f in out.glob("*.safetensors") for k, v in load_file(f).items()}
    index = json.loads(after["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in found.values())
    if inside:
        assert found.pop("position_ids").dtype == np.int64
        said = json.loads(after["config.json"])
        assert said["torch_dtype"] == "float32" and "dtype" not in said
        assert set(said["text_config"].values()) == {"float32"}
    assert {v.dtype for v in found.values()} == {np.dtype("float32")}
    if not inside:
        theirs = AutoModelForCausalLM.from_pretrained(out)
        assert str(theirs.dtype) == "torch.float32"
        weight = theirs.model.layers[1].mlp.up_proj.weight.detach().numpy()
        wanted = dict(tensors(model.spec, model.update(edit).params))
        np.testing.assert_array_equal(
            weight, wanted["model.layers.1.mlp.up_proj.weight"]
        )


def test_an_edit_that_changes_nothing_gives_the_base(tmp_path, base, tiny):
    patched(tmp_path / "out", base, tiny, edit_of(tiny, scale=0.0))
    before = files(base)
    assert all(before[k] == v for k, v in files(tmp_path / "out").items())


def test_links_of_the_hub_cache_become_files(tmp_path, base, tiny):
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.parent.mkdir()
    base.rename(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        if path.is_file():
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    before = files(blobs)
    patched(tmp_path / "out", snapshot, tiny, edit_of(tiny))
    assert not any(p.is_symlink() for p in (tmp_path / "out").rglob("*"))
    assert files(blobs) == before


def test_a_model_without_its_head_is_patched(quick, torch_logits, tmp_path):
    """As `AutoModel` saves it; `transformers` gives the edited model's logits."""
    from transformers import AutoModel

    model = tiny_model(SPECIFICATIONS["gemma3"], seed=1)
    whole, base = tmp_path / "whole", tmp_path / "base"
    whole.mkdir()
    huggingface_dir.write(whole, model)
    AutoModel.from_pretrained(whole).save_pretrained(base)
    assert "layers.0.mlp.up_proj.weight" in places(base / "model.safetensors")
    edit = edit_of(model)
    patched(tmp_path / "out", base, model, edit)
    found, wanted = (files(folder) for folder in (tmp_path / "out", base))
    assert found.pop("model.safetensors") != wanted.pop("model.safetensors")
    assert found == wanted
    draw = np.random.default_rng(0).integers(3, model.spec.vocabulary, (2, 20))
    theirs = torch_logits(tmp_path / "out", draw)
    ours, scale = our_logits(model.update(edit), draw), np.abs(theirs).max()
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=5e-5)


def test_a_link_that_leads_elsewhere_is_refused(tmp_path, base, tiny):
    """What it points to would be copied, whatever it is."""
    (tmp_path / "secret").write_text("a key")
    (base / "notes").mkdir()
    (base / "notes" / "inside.md").symlink_to(base / "README.md")
    patched(tmp_path / "out", base, tiny, edit_of(tiny))
    assert (tmp_path / "out" / "notes" / "inside.md").read_text() == "a base"
    for n, target in enumerate(("secret", "..", "base/../secret", "snapshots/../x")):
        link = base / "notes" / f"link{n}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(UserError, match=rf"link{n} is a link that leads out of"):
            patched(tmp_path / f"out{n}", base, tiny, edit_of(tiny))
        assert not any((tmp_path / f"out{n}").iterdir())
        link.unlink()
    (base / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"model\.safetensors is a link that leads"):
        patched(tmp_path / "no", base, tiny, edit_of(tiny))


PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_other_models_are_patched_under_their_names(tmp_path, tiny, prefix):
    """Those that see, and those that were saved without a head."""
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
