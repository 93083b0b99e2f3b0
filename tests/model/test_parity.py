"""Our network against the official Flax Gemma, and the laws of padding and taps.

The official package is imported inside fixtures: that takes seconds, pulls TensorFlow
in and warns about much that is not ours.
"""

import copy
import dataclasses
import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rounding
from rounding import EPSILON

from mu_jax.checkpoints.official.layout import from_official, to_official
from mu_jax.errors import UserError
from mu_jax.model.network import Network
from mu_jax.model.params import Params, name_axes, shapes
from mu_jax.model.releases import SPECS
from mu_jax.model.specs import Spec
from mu_jax.model.taps import KINDS, Patch, weight_shape
from mu_jax.testing import tiny_spec

HEADS = 4
KV_HEADS = {"MHA": 4, "GQA": 2, "MQA": 1}
ARCHITECTURES = list(itertools.product((1, 2, 3), KV_HEADS))
PAD = 0
"""What the official model takes for padding, whatever the tokenizer says."""

OFFICIAL = {
    "gemma2-2b": "Gemma2_2B",
    "gemma2-9b": "Gemma2_9B",
    "gemma2-27b": "Gemma2_27B",
    "gemma3-270m": "Gemma3_270M",
    "gemma3-1b": "Gemma3_1B",
    "gemma3-4b": "Gemma3_4B",
    "gemma3-12b": "Gemma3_12B",
    "gemma3-27b": "Gemma3_27B",
}
"""The official class of each row of SPECS; Gemma 1 no longer has any."""

PROMPTS = (
    "Paris",
    "The capital of France is",
    "Fact: Michael Jordan plays the sport of",
    "Water boils at 100 degrees Celsius, which is 212 degrees",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) +",
    "SELECT name, COUNT(*) FROM players WHERE sport = 'tennis' GROUP BY",
    '#include <stdio.h>\n\nint main(void) {\n\tprintf("%d\\n", 1 << 10);\n\treturn',
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55,",
    "3.14159265358979323846264338327950288",
    "12 * 12 = 144\n13 * 13 = 169\n14 * 14 =",
    "Die Hauptstadt der Bundesrepublik Deutschland heißt",
    "La tour Eiffel, construite en 1889, se trouve à",
    "El río más largo de América del Sur es el",
    "Столица России — город",
    "日本の首都は",
    "中国最长的河流是",
    "عاصمة مصر هي",
    "한국의 수도는",
    "  Odd   spacing,\ttabs\n\n\nand 🙂 emoji 🏳️‍🌈 (and brackets [ ] { })",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it "
    "was the age of foolishness, it was the epoch of belief, it was the epoch of",
)


@pytest.fixture(scope="session")
def official():
    """The official package's `gm.nn`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gemma import gm

        gm.nn.Gemma3_270M  # noqa: B018  the package imports lazily: do it in here
    return gm.nn


def architecture(generation: int, kind: str) -> Spec:
    """A tiny spec, with soft caps so low that they bite."""
    layers = 7 if generation == 3 else 4
    kv_heads = KV_HEADS[kind]
    spec = tiny_spec(generation, heads=HEADS, kv_heads=kv_heads, layers=layers)
    if generation == 2:
        spec = dataclasses.replace(spec, attention_softcap=2.0, final_softcap=3.0)
    return spec


def config_of(nn, spec: Spec, transpose: bool):
    """The official config of a spec."""
    kinds = nn.config.AttentionType
    local = [bool(window) for window in spec.windows]
    wavelengths = dict(zip(local, spec.wavelengths, strict=True))
    scales = dict(zip(local, spec.rope_scales, strict=True))
    config = nn.config.TransformerConfig(
        num_embed=spec.vocabulary,
        embed_dim=spec.embedding,
        hidden_dim=spec.neurons,
        num_heads=spec.heads,
        head_dim=spec.projection,
        num_kv_heads=spec.head_groups,
        final_logit_softcap=spec.final_softcap,
        use_post_attn_norm=spec.post_norms,
        use_post_ffw_norm=spec.post_norms,
        attention_types=tuple(
            kinds.LOCAL_SLIDING if w else kinds.GLOBAL for w in spec.windows
        ),
        attn_logits_soft_cap=spec.attention_softcap,
        sliding_window_size=next((w for w in spec.windows if w), None),
        transpose_gating_einsum=transpose,
        use_qk_norm=spec.qk_norm,
        local_base_frequency=int(wavelengths.get(True, 10_000)),
        global_base_frequency=int(wavelengths.get(False, 10_000)),
        local_scale_factor=scales.get(True, 1.0),
        global_scale_factor=scales.get(False, 1.0),
    )
    assert config.query_pre_attn_scalar() == spec.query_scale
    return config


def params_of(spec: Spec, seed: int = 0) -> Params:
    """Random parameters, drawn on the host: nothing to compile for each shape.

    In float64 under `float64`.
    """
    rng, params = np.random.default_rng(seed), {}
    for label, shape in shapes(spec).items():
        draw = rng.normal(size=tuple(shape.values()))
        value = 1 + 0.1 * draw if label.endswith("norm") else 0.2 * draw
        params[label] = name_axes(label, jnp.asarray(value), spec)
    return params


def quick(function, **how):
    """`jax.jit` that compiles in a third of the time, for programs run once."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=options, **how)


@functools.partial(quick, static_argnames=("network", "prefix", "read"))
def run(network, params, tokens, valid=None, *, patch=None, prefix=0, read=()):
    """Our logits at every position behind the prefix, and what was read."""
    stream, reads = network.stream(
        params, tokens, valid, patch=patch, prefix=prefix, read=read
    )
    return network.logits(params, stream), reads


def logits_of(spec: Spec, params: Params, tokens, valid=None, **how) -> np.ndarray:
    """Our logits at every position behind the prefix."""
    if valid is None:
        valid = np.ones(tokens.shape, bool)
    return np.asarray(run(Network(spec), params, tokens, valid, **how)[0])


def tokens_of(spec: Spec, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Random tokens, none of them padding."""
    draw = np.random.default_rng(seed).integers(1, spec.vocabulary, shape)
    return draw.astype(np.int32)


# The layout


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize(("generation", "kind"), ARCHITECTURES)
def test_parameters_survive_the_official_layout(generation, kind, transpose):
    spec = architecture(generation, kind)
    params = params_of(spec, 1)
    tree = to_official(params, spec, transpose_gating_einsum=transpose)
    back = from_official(tree, spec, transpose_gating_einsum=transpose)
    assert back.keys() == params.keys()
    for label, array in params.items():
        assert back[label].named_shape == array.named_shape, label
        ours, theirs = array.unwrap(*array.named_shape), back[label].data_array
        slack = EPSILON if label.endswith("norm") else 0  # one is taken off, and added
        np.testing.assert_allclose(theirs, ours, rtol=slack, atol=slack, err_msg=label)


@pytest.fixture
def tree(tiny):
    return copy.deepcopy(to_official(tiny.params, tiny.spec))


@pytest.mark.parametrize(
    "path",
    ["embedder/input_embedding", "layer_3/mlp/linear", "layer_6/attn/q_einsum/w"],
)
def test_a_missing_official_tensor_is_named(tiny, tree, path):
    *folders, name = path.split("/")
    inner = tree
    for folder in folders:
        inner = inner[folder]
    del inner[name]
    with pytest.raises(UserError, match=f"without '{path}'"):
        from_official(tree, tiny.spec)


@pytest.mark.parametrize("name", ["vision_encoder", "layer_7"])
def test_an_unknown_official_tensor_is_named(tiny, tree, name):
    tree[name] = {"scale": jnp.zeros(3)}
    with pytest.raises(UserError, match=f"unknown '{name}/scale'"):
        from_official(tree, tiny.spec)


def test_an_official_tensor_of_another_shape_is_named(tiny, tree):
    with pytest.raises(
        UserError, match=r"'layer_0/mlp/gating_einsum' of shape \(2, 48"
    ):
        from_official(tree, tiny.spec, transpose_gating_einsum=False)
    tree["layer_2"]["attn"]["kv_einsum"]["w"] = jnp.zeros((2, 2, 32, 8))
    with pytest.raises(UserError, match="'layer_2/attn/kv_einsum/w'"):
        from_official(tree, tiny.spec)


# Parity


@pytest.mark.parametrize(("generation", "kind"), ARCHITECTURES)
@pytest.mark.usefixtures("float64")
def test_logits_are_those_of_the_official_model(official, generation, kind):
    # Their frequencies of rotation are float32 in any model.
    assert distance(official, generation, kind, jnp.float64) < 32 * EPSILON


def test_logits_are_those_of_the_official_model_in_float32(official):
    bound = rounding.network(architecture(3, "GQA"), size=10)
    assert distance(official, 3, "GQA", jnp.float32) < bound


def distance(official, generation: int, kind: str, dtype) -> float:
    """Of our logits from the official ones, at the most."""
    spec = architecture(generation, kind)
    transpose = generation == 3
    params = params_of(spec, 2)
    # Longer than the window; one row whole, one padded on the left, one on the right.
    tokens = tokens_of(spec, (3, 40))
    tokens[1, :5] = tokens[2, -5:] = PAD
    config = config_of(official, spec, transpose)
    model = official.Transformer(config=config, dtype=dtype)
    tree = to_official(params, spec, transpose_gating_einsum=transpose)
    apply = quick(lambda tree, tokens: model.apply({"params": tree}, tokens).logits)
    theirs = np.asarray(apply(tree, tokens))
    valid = tokens != PAD
    ours = logits_of(spec, params, tokens, valid)
    assert ours.dtype == theirs.dtype == dtype
    assert 0.5 < np.std(theirs[valid]) < 5 and np.abs(theirs[valid]).max() < 10
    return np.abs(ours - theirs)[valid].max()


def test_the_layout_has_exactly_the_official_tensors(official):
    for generation, kind in ((1, "MHA"), (2, "GQA"), (3, "MQA")):
        spec = architecture(generation, kind)
        config = config_of(official, spec, transpose=True)
        model = official.Transformer(config=config, dtype=jnp.float32)
        dummy = jnp.ones((1, 2), jnp.int32)
        wanted = jax.eval_shape(model.init, jax.random.key(0), dummy)["params"]
        tree = to_official(params_of(spec, 0), spec)
        found = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
        assert found == wanted


def test_gemma3_270m_is_the_official_one_on_every_token_of_every_prompt(
    official, gemma
):
    ids = [gemma.tokenizer.encode(text).ids for text in PROMPTS]
    tokens = np.full((len(ids), max(map(len, ids))), PAD, np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    assert len(set(map(len, ids))) > 8
    tree = to_official(gemma.params, gemma.spec)
    model = official.Gemma3_270M(dtype=jnp.float32)
    network = gemma.network

    @jax.jit
    def compare(params, tree, tokens):
        stream, _ = network.stream(params, tokens, tokens != PAD)
        ours = network.logits(params, stream)
        theirs = model.apply({"params": tree}, tokens).logits
        distance = jnp.abs(ours - theirs).max(-1)
        return distance, ours.argmax(-1) == theirs.argmax(-1)

    # Few rows at once: logits of one position are a megabyte.
    batches = [compare(gemma.params, tree, rows) for rows in np.split(tokens, 5)]
    distance, same = (np.concatenate(part) for part in zip(*batches, strict=True))
    valid = tokens != PAD
    assert same[valid].all()
    assert distance[valid].max() < rounding.network(gemma.spec, size=30)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_sizes_are_those_of_the_official_class(official, name):
    spec, config = SPECS[name], getattr(official, OFFICIAL[name]).config
    local = [
        kind == official.config.AttentionType.LOCAL_SLIDING
        for kind in config.attention_types
    ]

    def each(if_local, if_global):
        return tuple(if_local if here else if_global for here in local)

    wanted = {
        "layers": config.num_layers,
        "vocabulary": config.num_embed,
        "embedding": config.embed_dim,
        "neurons": config.hidden_dim,
        "heads": config.num_heads,
        "head_groups": config.num_kv_heads,
        "projection": config.head_dim,
        "windows": each(config.sliding_window_size, None),
        "wavelengths": each(config.local_base_frequency, config.global_base_frequency),
        "rope_scales": each(config.local_scale_factor, config.global_scale_factor),
        "query_scale": config.query_pre_attn_scalar(),
        "qk_norm": config.use_qk_norm,
        "post_norms": config.use_post_attn_norm,
        "attention_softcap": config.attn_logits_soft_cap,
        "final_softcap": config.final_logit_softcap,
    }
    assert {field: getattr(spec, field) for field in wanted} == wanted
    assert config.use_post_ffw_norm == spec.post_norms


def test_only_gemma_1_has_no_official_class():
    gemmas = {name for name in SPECS if name.startswith("gemma")}
    assert gemmas - OFFICIAL.keys() == {"gemma-2b", "gemma-7b"}


# Padding and the shared prefix


@pytest.mark.parametrize("generation", [1, 2, 3])
@pytest.mark.parametrize("length", [31, 40])
@pytest.mark.usefixtures("float64")
def test_padding_changes_no_logit(generation, length):
    spec = architecture(generation, "GQA")
    params = params_of(spec, 3)
    real = tokens_of(spec, (1, 30))
    alone = logits_of(spec, params, real)[0]
    # On the left, on the right, on both sides; what the padding holds is no matter.
    starts = [length - 30, 0, (length - 30) // 2]
    tokens = tokens_of(spec, (3, length), seed=1)
    valid = np.zeros(tokens.shape, bool)
    for row, start in enumerate(starts):
        tokens[row, start : start + 30] = real
        valid[row, start : start + 30] = True
    got = logits_of(spec, params, tokens, valid)
    for row, start in enumerate(starts):
        here = got[row, start : start + 30]
        np.testing.assert_allclose(here, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("generation", [1, 2, 3])
@pytest.mark.usefixtures("float64")
def test_a_shared_prefix_changes_no_logit(generation):
    spec = architecture(generation, "GQA")
    params = params_of(spec, 4)
    tokens = tokens_of(spec, (3, 40))
    prefix = 20  # longer than the window
    tokens[:, :prefix] = tokens[0, :prefix]
    valid = np.ones(tokens.shape, bool)
    valid[1, -6:] = False
    whole = logits_of(spec, params, tokens, valid)
    rest = logits_of(spec, params, tokens, valid, prefix=prefix)
    behind = valid[:, prefix:]
    expected = whole[:, prefix:][behind]
    np.testing.assert_allclose(rest[behind], expected, rtol=0, atol=1e-12)


# Taps


@pytest.fixture
def clean(float64, tiny):
    """Tokens, what is read from a run over them, and its logits; in float64."""
    params = {k: a.astype(jnp.float64) for k, a in tiny.params.items()}
    tokens = tokens_of(tiny.spec, (2, 24), seed=5)
    valid = np.ones(tokens.shape, bool)
    logits, reads = run(tiny.network, params, tokens, valid, read=KINDS)
    return params, tokens, reads, np.asarray(logits)


def patches(reads, kinds, weight: float, noise: float = 0.0) -> dict[str, Patch]:
    """Patches of all positions (and heads) towards `reads`, plus noise."""
    out = {}
    for i, kind in enumerate(kinds):
        donor = reads[kind]
        shape = weight_shape(kind, donor.shape)
        draw = np.random.default_rng(i).normal(size=donor.shape)
        shifted = np.asarray(donor) + noise * draw
        out[kind] = Patch(np.full(shape, weight), shifted)
    return out


def test_reading_taps_changes_no_logit(tiny, clean):
    params, tokens, _, logits = clean
    got = logits_of(tiny.spec, params, tokens)
    np.testing.assert_allclose(got, logits, rtol=0, atol=1e-12)


def test_a_patch_of_weight_zero_changes_no_logit(tiny, clean):
    params, tokens, reads, logits = clean
    patch = patches(reads, KINDS, weight=0.0, noise=3.0)
    got = logits_of(tiny.spec, params, tokens, patch=patch)
    np.testing.assert_allclose(got, logits, rtol=0, atol=1e-12)


def test_the_whole_stream_of_a_clean_run_gives_its_logits(tiny, clean):
    params, _, reads, logits = clean
    other = tokens_of(tiny.spec, (2, 24), seed=6)
    for weight, same in ((1.0, True), (0.0, False)):
        patch = patches(reads, ("resid",), weight)
        got = logits_of(tiny.spec, params, other, patch=patch)
        if same:
            np.testing.assert_allclose(got, logits, rtol=0, atol=1e-12)
        else:  # or the law would say nothing
            assert np.abs(got - logits).max() > 1
