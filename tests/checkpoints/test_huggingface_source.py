"""Hugging Face directories: the same logits as transformers, or a refusal by name."""

import copy
import dataclasses
import functools
import json
import os
import pickle
import warnings

import jax
import jax.numpy as jnp
import made_checkpoints as made
import made_pieces
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.source import place
from mu_jax.errors import UserError
from mu_jax.model.network import Network

SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
STRETCH = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 1e4,
}
GEMMA3 = {
    "sliding_window": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 24,
    "rope_parameters": {"full_attention": LINEAR, "sliding_attention": PLAIN},
}
LADDER = {
    "gemma-mqa": ("GemmaConfig", {"num_key_value_heads": 1}),
    "gemma2-gqa": (
        "Gemma2Config",
        {"num_key_value_heads": 2, "sliding_window": 8, "query_pre_attn_scalar": 24},
    ),
    "gemma3-mha": ("Gemma3TextConfig", GEMMA3),
    "llama3-gqa": (
        "LlamaConfig",
        {"num_key_value_heads": 2, "rope_parameters": STRETCH},
    ),
    "llama3-tied": (
        "LlamaConfig",
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
}


@pytest.fixture(scope="module")
def torch():
    """Random models of transformers with weights that every part of a layer feels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return torch


def random(torch, settings):
    """A model of a config of transformers, its norms far from their defaults."""
    import transformers

    kind = transformers.AutoModelForCausalLM
    if hasattr(settings, "vision_config"):
        kind = transformers.AutoModelForImageTextToText
    model = kind.from_config(settings, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            draw = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(draw * 0.2)
            else:
                is_scale = settings.model_type == "llama"
                weight.copy_((0.2 if name.endswith("norm.weight") else 0.1) * draw)
                weight.add_(1.0 if is_scale else 0.0)
    return model


@pytest.fixture(scope="module")
def saved(torch, quick, tmp_path_factory):
    """By name of the ladder: the model of transformers and its directory."""

    @functools.cache
    def save(name, dtype="float32"):
        import transformers

        kind, changes = LADDER[name]
        settings = getattr(transformers, kind)(**{**SIZES, **changes})
        model = random(torch, settings).to(getattr(torch, dtype))
        path = tmp_path_factory.mktemp(name)
        model.save_pretrained(path, max_shard_size="60kB")
        if dtype != "float32":  # their casts round buffers that no file holds
            kind = transformers.AutoModelForCausalLM
            model = kind.from_pretrained(path, dtype=torch.float32)
        return model, path

    return save


TOKENS = np.random.default_rng(0).integers(1, 128, (2, 40)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def logits(network, params, tokens):
    stream, _ = network.stream(params, tokens)
    return network.logits(params, stream)


def apart(torch, model, path) -> float:
    """The largest difference of our logits from theirs, in float64.

    Their norms are float32 in any model.
    """
    source = open_folder(path, "one name, one compilation")
    params, model = place(source), copy.deepcopy(model).double()
    with jax.enable_x64(True):
        params = {label: a.astype(jnp.float64) for label, a in params.items()}
        ours = logits(Network(source.spec), params, TOKENS)
    with torch.no_grad():
        theirs = model(torch.tensor(TOKENS.astype(np.int64))).logits.numpy()
    assert np.abs(theirs).max() > 0.5
    return np.abs(np.asarray(ours) - theirs).max()


@pytest.mark.parametrize("name", LADDER)
def test_logits_are_those_of_transformers(torch, saved, name):
    model, path = saved(name)
    files = sorted(f.name for f in path.glob("*.safetensors"))
    assert len(files) > 3 and files[0].startswith("model-00001")
    assert apart(torch, model, path) < 2e-5


def test_a_bfloat16_checkpoint_is_read_exactly(torch, saved):
    model, path = saved("gemma2-gqa", "bfloat16")
    assert json.loads((path / "config.json").read_text())["dtype"] == "bfloat16"
    assert apart(torch, model, path) < 2e-5


@pytest.mark.parametrize(
    "name", ["gemma-mqa", "gemma2-gqa", "gemma3-mha", "llama3-tied"]
)
def test_a_folder_that_automodel_saved_is_read(torch, saved, tmp_path, name):
    from transformers import AutoModel

    model, path = saved(name)
    AutoModel.from_pretrained(path).save_pretrained(tmp_path)
    assert "norm.weight" in load_file(tmp_path / "model.safetensors")
    assert apart(torch, model, tmp_path) < 5e-5


def test_a_head_that_automodel_left_out_is_missed(torch, saved, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(saved("llama3-gqa")[1]).save_pretrained(tmp_path)
    message = r"lacks the tensor 'lm_head\.weight'.*save .*with AutoModelForCausalLM"
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


@pytest.mark.parametrize("wrapped", ["language_model.model.", "model.language_model."])
def test_the_language_model_of_a_multimodal_gemma_is_read(
    torch, saved, tmp_path, wrapped
):
    """As published before and since transformers 4.52; vision is left out."""
    model, path = saved("gemma3-mha")
    tensors = {}
    for file in path.glob("*.safetensors"):
        for name, value in load_file(file).items():
            tensors[wrapped + name.removeprefix("model.")] = value
    above = "model." if wrapped.startswith("model.") else ""
    for name in ("vision_tower.vision_model.post_layernorm", "multi_modal_projector.x"):
        tensors[f"{above}{name}.weight"] = np.zeros(3, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    inner = json.loads((path / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": inner, "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    assert apart(torch, model, tmp_path) < 2e-5


def test_a_multimodal_gemma_as_transformers_saves_it(torch, saved, tmp_path):
    import transformers

    settings = transformers.Gemma3Config(
        text_config={**SIZES, **GEMMA3},
        vision_config={
            **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        },
        mm_tokens_per_image=4,
        image_token_index=127,
        boi_token_index=126,
        eoi_token_index=125,
    )
    model = random(torch, settings)
    theirs = model.model.language_model
    for whole, name in ((model, "whole"), (model.model, "without its head")):
        whole.save_pretrained(tmp_path / name)
        params = made.plain(place(open_folder(tmp_path / name)))
        found = theirs.embed_tokens.weight.detach().numpy()
        assert params["embedder"].tobytes() == found.tobytes()
        found = theirs.layers[3].mlp.up_proj.weight.detach().numpy().T
        np.testing.assert_array_equal(params["mlp/up"][3], found)


@pytest.mark.parametrize("kind", made.SPECS)
def test_what_was_exported_is_read_back(tmp_path, kind):
    model = made.model(kind)
    source = open_folder(made.directory(tmp_path / "out", model), kind)
    assert source.spec == dataclasses.replace(model.spec, name=kind)
    wanted = made.plain(model.params)
    for label, value in made.plain(place(source)).items():
        close = np.abs(value - wanted[label]).max()
        assert close <= (2e-7 if label.endswith("norm") else 0), label


def test_the_digest_is_of_the_content(tmp_path):
    model = made.model("gemma2")
    one, same = (made.directory(tmp_path / n, model) for n in "ab")
    assert open_folder(one).digest == open_folder(same).digest
    tensors = load_file(same / "model.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"] += 1
    save_file(tensors, same / "model.safetensors")
    assert open_folder(one).digest != open_folder(same).digest


# Refusals


@pytest.fixture
def folder(tmp_path):
    return made.directory(tmp_path / "model", made.model("llama3"))


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


UP = "model.layers.2.mlp.up_proj.weight"
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(folder):
    """The same under an index, not written yet."""
    return (folder / "model.safetensors").rename(folder / "shard.safetensors").parent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(UP), f"lacks the tensor '{UP}'"),
        (lambda t: t.pop("lm_head.weight"), r"lacks the tensor 'lm_head\.weight'"),
        (
            lambda t: t.update({"model.layers.4.mlp.up_proj.weight": t[UP]}),
            r"has the tensor 'model\.layers\.4\.",
        ),
        (
            lambda t: t.update(
                {"model.layers.0.self_attn.q_proj.bias": np.zeros(3, np.float32)}
            ),
            r"has the tensor 'model\.layers\.0\.self_attn\.q_proj\.bias'",
        ),
        (lambda t: t.update({UP: t[UP].T.copy()}), r"up_proj.* has shape \[32, 48\]"),
        (lambda t: t.update({UP: t[UP].astype(np.int8)}), r"up_proj.* of dtype I8"),
        (lambda t: t.update({f"language_model.{UP}": t[UP]}), r"up_proj.* twice"),
    ],
    ids=["missing", "head", "layer", "bias", "shape", "dtype", "twice"],
)
def test_a_tensor_that_does_not_fit_is_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        open_folder(folder)


def test_a_second_copy_of_a_tied_table_is_left_out(tmp_path, monkeypatch):
    """One that differs is not: transformers would compute with it."""
    monkeypatch.setattr("mu_jax.checkpoints.huggingface.folder._ROWS", 100)
    folder = made.directory(tmp_path / "model", made.model("gemma1"))
    rewrite(folder, lambda t: t.update({HEAD: t[EMBEDDINGS].copy()}))
    assert "unembedder" not in place(open_folder(folder))
    moved = lambda table: np.concatenate([table[:-1], table[-1:] + 1])
    for change in (moved, lambda table: table[:-1]):
        rewrite(folder, lambda t, of=change: t.update({HEAD: of(t[EMBEDDINGS])}))
        with pytest.raises(
            UserError, match=rf"{HEAD} differs from {EMBEDDINGS}; .*tie"
        ):
            open_folder(folder)


def test_an_outer_config_unties_the_tables_too(tmp_path):
    folder = made.directory(tmp_path / "model", made.model("gemma3"))
    inner = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": inner, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(outer))
    with pytest.raises(UserError, match="tie_word_embeddings is False"):
        open_folder(folder)


def test_the_single_file_goes_before_an_index(torch, saved, tmp_path):
    """As in transformers: both files, and an index that names the other one."""
    import transformers

    _, path = saved("llama3-tied")
    tensors = {
        k: v for f in path.glob("*.safetensors") for k, v in load_file(f).items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    other = {k: v + 1 for k, v in tensors.items()}
    save_file(other, tmp_path / "other.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "other.safetensors")}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, **index}))
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    assert apart(torch, theirs, tmp_path) < 5e-5


def test_weights_that_the_config_names_elsewhere_are_refused(tmp_path):
    """transformers would take those."""
    folder = made.directory(
        tmp_path / "m", made.model("gemma3"), transformers_weights="other.safetensors"
    )
    with pytest.raises(UserError, match=r"weights in 'other\.safetensors'"):
        open_folder(folder)


def test_a_truncated_file_is_named(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
            open_folder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../other.safetensors", "in the same folder"),
        ("/etc/passwd", "in the same folder"),
        ("..", "in the same folder"),
        ("a\\b.safetensors", "in the same folder"),
        (3, "in the same folder"),
        ("pytorch_model.bin", "pickled weights can run code"),
        ("absent.safetensors", "absent.safetensors is missing"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(sharded, name, message):
    (sharded / INDEX).write_text(json.dumps({"weight_map": {UP: name}}))
    with pytest.raises(UserError, match=message):
        open_folder(sharded)


def test_a_tensor_in_two_files_is_refused(sharded):
    data = (sharded / "shard.safetensors").read_bytes()
    (sharded / "again.safetensors").write_bytes(data)
    index = {"weight_map": {"a": "shard.safetensors", "b": "again.safetensors"}}
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="has a tensor twice"):
        open_folder(sharded)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"weight_map": []}', "\xff" * 9])
def test_a_broken_index_is_refused(sharded, content):
    (sharded / INDEX).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"index\.json"):
        open_folder(sharded)


def linked(folder, name, target):
    (folder / name).rename(target)
    (folder / name).symlink_to(target)


def test_links_of_the_hub_cache_are_followed(folder, tmp_path):
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    folder = folder.rename(tmp_path / "models--a--b" / "snapshots" / "0123")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        linked(folder, name, tmp_path / "models--a--b" / "blobs" / name)
    (tmp_path / "main").symlink_to(folder)
    assert open_folder(tmp_path / "main").tokenizer().bos == 258


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_elsewhere_is_refused(folder, tmp_path, name):
    linked(folder, name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"{name} is a link that leads out of its"):
        open_folder(folder).tokenizer()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pipe_is_refused(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}"):
        open_folder(folder)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickled_weights_are_refused_by_name(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=f"has the weights {name}"):
        open_folder(folder)


def test_no_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        open_folder(folder)


def test_no_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"model: a checkpoint without a tokenizer"):
        open_folder(folder).tokenizer()


def test_no_bos_is_refused(folder):
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model: a tokenizer without a BOS token"):
        open_folder(folder).tokenizer()


def test_the_config_names_bos_where_the_tokenizer_does_not(tmp_path):
    model = made.model("llama3")
    folder = made.directory(tmp_path / "m", model, bos_token_id=258, pad_token_id=7)
    (folder / "tokenizer_config.json").unlink()
    tokenizer = open_folder(folder).tokenizer()
    assert (tokenizer.bos, tokenizer.pad) == (258, 7)


def test_ends_are_those_of_all_files(tmp_path):
    folder = made.directory(tmp_path / "m", made.model("llama3"), eos_token_id=[5, 106])
    (folder / "generation_config.json").write_text('{"eos_token_id": [106, 7]}')
    assert open_folder(folder).tokenizer().ends == (259, 5, 106, 7)


def test_a_token_without_an_embedding_is_refused(tmp_path):
    """It would be read as the last token that has one."""
    model = made.model("llama3")
    folder, last = made.directory(tmp_path / "m", model), model.spec.vocabulary
    fills = {f"<{i}>": i for i in range(260, last + 1)}
    (folder / "added_tokens.json").write_text(json.dumps(fills))
    tokenizer = open_folder(folder).tokenizer()
    assert tokenizer.encode(f"a<{last - 1}>").ids[-1] == last - 1
    with pytest.raises(UserError, match=f"'<{last}>', the token {last}; .* {last} tok"):
        tokenizer.encode(f"a<{last}>")


def test_tokens_that_a_tokenizer_json_adds_are_tokens(tmp_path):
    """Though a tokenizer.model lies beside it, as in Gemma's folders."""
    folder = made.directory(tmp_path / "m", made.model("gemma3"))
    (folder / "tokenizer.model").write_bytes(made_pieces.proto())
    (folder / "tokenizer.json").write_bytes(made_pieces.as_json("<fact>"))
    (folder / "tokenizer_config.json").write_bytes(made_pieces.settings())
    ids = open_folder(folder).tokenizer().encode("a<fact>").ids
    assert ids == [2, made_pieces.ID["a"], len(made_pieces.PIECES)]


def test_the_tokenizer_of_llama_2_is_refused(tmp_path):
    folder = made.directory(tmp_path / "m", made.model("llama3"))
    (folder / "tokenizer.model").write_bytes(made_pieces.proto(dummy=True))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"m: a tokenizer\.model that puts a space"):
        open_folder(folder).tokenizer()
