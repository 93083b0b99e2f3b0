"""Official checkpoints on disk: read onto one device and onto eight, and written."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.checkpoints.official.layout import leaves, official_shapes, to_official
from mu_jax.errors import UserError
from mu_jax.model.params import random, shapes
from mu_jax.model.releases import SPECS
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec

SPECIFICATIONS = {
    "gemma1": tiny_spec(1, kv_heads=4, layers=2),
    "gemma2": tiny_spec(2, kv_heads=2, layers=2),
    "gemma3": tiny_spec(3, kv_heads=1, layers=6),
}
TRANSPOSED = {"gemma1": False, "gemma2": True, "gemma3": True}


@pytest.fixture(scope="module")
def gm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gemma import gm

        gm.nn.Gemma3_270M, gm.ckpts.load_params  # noqa: B018  imported lazily
    return gm


def plain(array) -> np.ndarray:
    return np.asarray(array.unwrap(*array.named_shape))


def written(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


def same(params, wanted):
    assert params.keys() == wanted.keys()
    for label, array in wanted.items():
        assert params[label].named_shape == array.named_shape
        slack = 1e-6 if label.endswith("norm") else 0
        np.testing.assert_allclose(
            plain(params[label]), plain(array), rtol=0, atol=slack, err_msg=label
        )


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_what_is_written_is_read(gm, tmp_path, name):
    model = tiny_model(SPECIFICATIONS[name], seed=3)
    (tmp_path / "beside.txt").write_text("stays")
    official_dir.save(tmp_path, model.spec, model.params)
    assert (tmp_path / "beside.txt").exists()
    spec, params = official_dir.load(tmp_path, spec=model.spec)
    assert spec == model.spec and list(params) == list(shapes(spec))
    same(params, model.params)
    tree = to_official(
        model.params, model.spec, transpose_gating_einsum=TRANSPOSED[name]
    )
    theirs = gm.ckpts.load_params(tmp_path)
    assert jax.tree.structure(theirs) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, theirs, tree)


def test_norms_become_one_more_in_float32(gm, tmp_path):
    spec = SPECIFICATIONS["gemma2"]
    rng = np.random.default_rng(0)
    tree = to_official(random(spec, 0), spec)
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), tree)
    w = jnp.asarray(0.01 * rng.standard_normal(spec.embedding), jnp.bfloat16)
    tree["final_norm"]["scale"] = w
    path = written(tmp_path / "half", tree)
    _, whole = official_dir.load(path, spec=spec)
    expected = 1 + np.asarray(w, np.float32)
    np.testing.assert_array_equal(plain(whole["final_norm"]), expected)
    assert (expected.astype(jnp.bfloat16) != expected).any()
    _, half = official_dir.load(path, dtype=jnp.bfloat16, spec=spec)
    assert half["mlp/up"].dtype == half["embedder"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(plain(half["final_norm"]), expected)
    np.testing.assert_array_equal(
        plain(half["mlp/up"]), plain(whole["mlp/up"]).astype(jnp.bfloat16)
    )


def test_the_released_flat_layout_with_its_images_is_read(gm, tmp_path):
    model = tiny_model(SPECIFICATIONS["gemma2"], seed=4)
    flat: dict = {}
    for path, value in leaves(to_official(model.params, model.spec)):
        path = f"{path}/w" if path.endswith(("linear", "gating_einsum")) else path
        folder, _, name = f"transformer/{path}".rpartition("/")
        flat.setdefault(folder, {})[name] = value
    flat["transformer/embedder/mm_input_projection"] = {"w": jnp.ones((3, 32))}
    flat["transformer/embedder/mm_soft_embedding_norm"] = {"scale": jnp.ones(3)}
    flat["SigLiPFromPatches_0/siglip_encoder/embedding"] = {"kernel": jnp.ones((2, 3))}
    _, params = official_dir.load(written(tmp_path / "it", flat), spec=model.spec)
    same(params, model.params)


SHARDED = """
import sys
import numpy as np
from pathlib import Path
from mu_jax.checkpoints.official import directory as official_dir
from mu_jax.devices.sharding import Mesh
from mu_jax.testing import tiny_model, tiny_spec

model = tiny_model(tiny_spec(2, kv_heads=2, layers=2), seed=3)
layout = Mesh(data=1, fsdp=4, tensor=2).layout()
_, params = official_dir.load(Path(sys.argv[1]), layout, spec=model.spec)
for label, array in params.items():
    assert array.data_array.sharding == layout.weights(array.named_shape), label
    slack = 1e-6 if label.endswith("norm") else 0
    a, b = (np.asarray(p.unwrap(*p.named_shape)) for p in (array, model.params[label]))
    np.testing.assert_allclose(a, b, rtol=0, atol=slack, err_msg=label)
up = params["mlp/up"].data_array.addressable_shards[0].data
assert up.shape == (2, 8, 24), up.shape
"""


def test_every_tensor_goes_into_its_shards(tmp_path):
    model = tiny_model(SPECIFICATIONS["gemma2"], seed=3)
    official_dir.save(tmp_path, model.spec, model.params)
    flags = "--xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
    )


def test_the_size_is_found_from_the_shapes(tmp_path):
    gemmas = [spec for spec in SPECS.values() if spec.activation == "gelu"]
    assert len(gemmas) == 10
    for spec in gemmas:
        for transpose in (True, False):
            assert official_dir.find(tmp_path, official_shapes(spec, transpose)) == spec
    found = official_shapes(SPECS["gemma3-1b"], True)
    del found["layer_25/mlp/linear"]
    with pytest.raises(UserError, match=r"26 layers and an embedding table \[262144,"):
        official_dir.find(tmp_path, found)


def test_the_gating_is_laid_out_as_the_official_class_of_the_size_has_it(gm):
    official = {
        "gemma2-2b": "Gemma2_2B",
        "gemma2-9b": "Gemma2_9B",
        "gemma2-27b": "Gemma2_27B",
        "gemma3-270m": "Gemma3_270M",
        "gemma3-1b": "Gemma3_1B",
        "gemma3-4b": "Gemma3_4B",
        "gemma3-12b": "Gemma3_12B",
        "gemma3-27b": "Gemma3_27B",
    }
    for name, theirs in official.items():
        config = getattr(gm.nn, theirs).config
        wanted = config.transpose_gating_einsum
        assert official_dir.transposed(SPECS[name]) == wanted, name


def test_a_llama_is_refused_by_name(tmp_path):
    llama = tiny_model(tiny_llama(layers=1))
    with pytest.raises(
        UserError, match=r"tiny-llama3, a Llama.*Hugging Face directory"
    ):
        official_dir.save(tmp_path, llama.spec, llama.params)
    assert list(tmp_path.iterdir()) == []


def test_another_model_is_refused_by_the_tensor(tmp_path):
    model = tiny_model(SPECIFICATIONS["gemma2"])
    official_dir.save(tmp_path, model.spec, model.params)
    with pytest.raises(UserError, match="without 'layer_2/"):
        official_dir.load(tmp_path, spec=tiny_spec(2, kv_heads=2, layers=3))
    with pytest.raises(UserError, match=r"2 layers and an embedding table \[512, 32\]"):
        official_dir.load(tmp_path)


@pytest.mark.parametrize("damage", ["nowhere", "empty", "truncated", "stacked"])
def test_what_is_no_checkpoint_is_refused(gm, tmp_path, damage):
    model = tiny_model(SPECIFICATIONS["gemma2"])
    path, message = tmp_path / "it", "it cannot be read"
    if damage == "empty":
        path.mkdir()
    elif damage == "truncated":
        path.mkdir()
        official_dir.save(path, model.spec, model.params)
        for file in (p for p in path.rglob("*") if p.is_file() and "d" in p.parts[-2]):
            file.write_bytes(file.read_bytes()[:50])
    elif damage == "stacked":
        key, message = "transformer/stacked_layers/attention_type_0/mlp", "stacked"
        written(path, {key: {"w": jnp.ones((2, 3))}})
    with pytest.raises(UserError, match=message):
        official_dir.load(path, spec=model.spec)


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "list": lambda data: b"[3]",
    "deep": lambda data: b"[" * 100_000,
    "lfs": lambda data: b"version https://git-lfs.example/spec/v1\noid sha256:0\n",
}


def largest(path):
    """The data file with most of the tensors in it."""
    found = (path / "ocdbt.process_0" / "d").iterdir()
    return max(found, key=lambda file: file.stat().st_size)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("largest", "cut"), ("largest", "missing"), ("largest", "lfs")),
        *(("_METADATA", "list"), ("_METADATA", "deep"), ("manifest.ocdbt", "cut")),
    ],
)
def test_one_damaged_file_makes_one_line(gm, tmp_path, capfd, name, damage):
    model = tiny_model(SPECIFICATIONS["gemma2"])
    official_dir.save(tmp_path, model.spec, model.params)
    file = largest(tmp_path) if name == "largest" else tmp_path / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    capfd.readouterr()
    message = rf"{file.name} is a pointer of git-lfs" if damage == "lfs" else "read"
    with pytest.raises(UserError, match=message) as error:
        official_dir.load(tmp_path, spec=model.spec)
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""


def test_the_tokenizer_lies_in_the_folder_or_beside_it(tmp_path):
    path = tmp_path / "gemma"
    path.mkdir()
    with pytest.raises(UserError, match=r"no tokenizer\.model in .*put it there as"):
        official_dir.tokenizer(path)
    (tmp_path / "tokenizer.model").write_bytes(b"beside")
    assert official_dir.tokenizer(path) == b"beside"
    (path / "tokenizer.model").write_bytes(b"inside")
    assert official_dir.tokenizer(path) == b"inside"
