"""GGUF files: read back as they were written, or refused by name."""

import dataclasses
import itertools
import json
from pathlib import Path

import gguf as library
import made_checkpoints as made
import numpy as np
import pytest

from mu_jax.checkpoints.gguf import file as gguf
from mu_jax.checkpoints.gguf import tokenizer as gguf_tokenizer
from mu_jax.checkpoints.huggingface.directory import tokenizer_files
from mu_jax.checkpoints.source import place
from mu_jax.errors import UserError
from mu_jax.model.params import shapes
from mu_jax.model.special import JSON, PROTO, SETTINGS
from mu_jax.model.tokenizer import from_files
from mu_jax.testing import tiny_model


@pytest.fixture(scope="module", params=made.SPECS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def written(kind, tmp_path_factory):
    """A model and a float32 file of it."""
    model = made.model(kind)
    path = tmp_path_factory.mktemp(kind) / "model.gguf"
    return model, made.gguf_file(path, model)


def test_a_file_is_read_back_exactly(written):
    model, path = written
    source = gguf.open_file(path)
    found = dataclasses.replace(source.spec, name=model.spec.name)
    # Norms' epsilon and RoPE are stored as float32.
    assert found == model.spec
    wanted = made.plain(model.params)
    for label, value in made.plain(place(source)).items():
        assert value.tobytes() == wanted[label].tobytes(), label


def test_a_part_is_cut_from_the_whole(written):
    """Also inside a head, whose halves are interleaved in Llama."""
    _, path = written
    source = gguf.open_file(path)
    for label, shape in shapes(source.spec).items():
        layer = 1 if "layer" in shape else None
        axes = [n for axis, n in shape.items() if axis != "layer"]
        whole = source.part(label, layer, (slice(None),) * len(axes))
        halves = [(slice(0, n // 2 or 1), slice(n // 2, n)) for n in axes]
        for index in itertools.product(*halves):
            np.testing.assert_array_equal(
                source.part(label, layer, index), whole[index], err_msg=label
            )


GEMMA3 = made.model("gemma3")
LLAMA = made.model("llama3")
BLOCKS = tiny_model(dataclasses.replace(made.SPECS["gemma2"], neurons=64))
"""Its rows are whole blocks of 32."""


@pytest.mark.parametrize("quantised", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_a_quantised_file_is_dequantised(tmp_path, quantised):
    kind = library.GGMLQuantizationType[quantised]
    source = gguf.open_file(made.gguf_file(tmp_path / "m.gguf", BLOCKS, kind))
    wanted = made.plain(BLOCKS.params)
    largest = {"F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2, "Q4_0": 0.2}[quantised]
    for label, value in made.plain(place(source)).items():
        scale = np.abs(wanted[label]).max()
        assert np.abs(value - wanted[label]).max() <= largest * scale, label


def test_rows_are_dequantised_only_when_asked_for(tmp_path, monkeypatch):
    kind = library.GGMLQuantizationType.Q8_0
    source = gguf.open_file(made.gguf_file(tmp_path / "m.gguf", BLOCKS, kind))
    rows = []
    whole = library.dequantize

    def counted(data, kind):
        rows.append(len(data))
        return whole(data, kind)

    monkeypatch.setattr(library, "dequantize", counted)
    source.part("embedder", None, (slice(10, 13), slice(None)))
    source.part("mlp/up", 1, (slice(None), slice(4, 9)))
    assert rows == [3, 5]


def test_the_table_of_published_models_is_recognised():
    from mu_jax.checkpoints.gguf import spec as gguf_spec
    from mu_jax.model.releases import SPECS

    def fields(kind, **values):
        words = {"tokenizer.ggml.tokens": ["x"] * values.pop("words")}
        values = {f"{kind}.{k.replace('__', '.')}": v for k, v in values.items()}
        return {"general.architecture": kind, **words, **values}

    llama = fields(
        "llama",
        words=128_256,
        block_count=32,
        embedding_length=4096,
        feed_forward_length=14336,
        attention__head_count=32,
        attention__head_count_kv=8,
        context_length=8192,
        rope__freq_base=500_000.0,
        rope__dimension_count=128,
        attention__layer_norm_rms_epsilon=float(np.float32(1e-5)),
    )
    assert gguf_spec.spec(Path("x"), llama, tied=False) == SPECS["llama3-8b"]
    longer = gguf_spec.spec(
        Path("x"),
        llama,
        tied=False,
        rope_factors=made.rope_factors(SPECS["llama3.1-8b"]),
    )
    assert longer == SPECS["llama3.1-8b"]
    gemma = fields(
        "gemma2",
        words=256_128,
        block_count=46,
        embedding_length=4608,
        feed_forward_length=36864,
        attention__head_count=32,
        attention__head_count_kv=16,
        attention__key_length=128,
        attention__sliding_window=4096,
        context_length=8192,
    )
    assert gguf_spec.spec(Path("x"), gemma, tied=True) == SPECS["gemma2-27b"]


# Tokenizers

TURN = "<start_of_turn>a<b><end_of_turn>"


def test_control_tokens_are_those_of_every_file_made_of_it(tmp_path):
    """Of the GGUF, of its tokenizer.model, and of what transformers makes of that."""
    from transformers import AutoTokenizer

    path = made.gguf_file(tmp_path / "m.gguf", made.model("gemma3"))
    tokenizer = gguf.open_file(path).tokenizer()
    ids = tokenizer.encode(TURN).ids
    assert ids == [2, 260, 4 + ord("a"), 262, 261]
    assert tokenizer.ends == (1, 261) and tokenizer.decode(ids) == "a<b>"
    files = tokenizer_files(tokenizer)
    assert from_files({PROTO: files[PROTO]}).encode(TURN).ids == ids
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TURN).input_ids == ids
    theirs.save_pretrained(tmp_path / "json")
    again = from_files(
        {name: (tmp_path / "json" / name).read_bytes() for name in (JSON, SETTINGS)}
    )
    assert again.encode(TURN) == tokenizer.encode(TURN)


def test_byte_pairs_have_control_tokens_and_ends_too(tmp_path):
    path = made.gguf_file(tmp_path / "m.gguf", made.model("llama3"))
    tokenizer = gguf.open_file(path).tokenizer()
    names = [made.letters().index("a"), 262]
    assert tokenizer.encode("a<|special4|>").ids == [258, *names]
    assert tokenizer.ends == (259,)
    assert from_files(tokenizer.files()).ends == (259,)


def test_a_vocabulary_that_puts_a_space_in_front_is_refused(tmp_path):
    fields = {"tokenizer.ggml.add_space_prefix": True}
    with pytest.raises(UserError, match=r"m\.gguf that puts a space in front"):
        gguf_tokenizer.files(Path("m.gguf"), fields)


def test_a_chat_template_is_kept(tmp_path):
    path = made.gguf_file(tmp_path / "m.gguf", made.model("gemma3"))
    fields, _ = gguf._contents(path)
    fields["tokenizer.chat_template"] = "{{ messages }}"
    files = gguf_tokenizer.files(path, fields)
    assert json.loads(files[SETTINGS])["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("pattern", [2, [True, False, False, True, False, True, True]])
def test_windows_are_where_the_file_has_them(tmp_path, pattern):
    changes = {"attention.sliding_window_pattern": pattern}
    found = gguf.open_file(made.gguf_file(tmp_path / "m.gguf", GEMMA3, **changes)).spec
    wanted = pattern if isinstance(pattern, list) else [True, False] * 3 + [True]
    assert [w is not None for w in found.windows] == wanted
    assert found.wavelengths == tuple(1e4 if local else 1e6 for local in wanted)
    assert found.rope_scales == tuple(1.0 if local else 8.0 for local in wanted)


@pytest.mark.parametrize("key", ["rope.local.freq_base", "rope.freq_base_swa"])
def test_local_layers_have_the_wavelength_of_the_file(tmp_path, key):
    path = made.gguf_file(tmp_path / "m.gguf", GEMMA3, **{key: 5e4})
    found = gguf.open_file(path).spec
    pairs = set(zip(found.windows, found.wavelengths, strict=True))
    assert pairs == {(16, 5e4), (None, 1e6)}


def test_a_gemma3_has_the_caps_of_the_file(tmp_path):
    caps = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 0.0}
    found = gguf.open_file(made.gguf_file(tmp_path / "m.gguf", GEMMA3, **caps)).spec
    assert (found.attention_softcap, found.final_softcap) == (20.0, None)
    caps["final_logit_softcapping"] = 30.0
    found = gguf.open_file(made.gguf_file(tmp_path / "m.gguf", GEMMA3, **caps)).spec
    assert found.final_softcap == 30.0


# Refusals


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x00" * 64,
        b"GGUF",
        b"GGUF" + b"\xff" * 200,
        b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 200,
        b"GGUF" + b"\x03\x00\x00\x00" + b"\x01" + b"\x00" * 7 + b"\x7f" * 300,
        bytes(range(256)) * 4,
    ],
    ids=["empty", "text", "zeros", "magic", "version", "counts", "names", "bytes"],
)
def test_garbage_is_refused(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model\.gguf cannot be read as GGUF"):
        gguf.open_file(path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    whole = made.gguf_file(tmp_path / "whole.gguf", LLAMA).read_bytes()
    path = tmp_path / "short.gguf"
    for size in (*range(0, 600, 61), *range(600, len(whole) - 64, len(whole) // 40)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"short\.gguf"):
            gguf.open_file(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*nope\.gguf"):
        gguf.open_file(tmp_path / "nope.gguf")


def test_another_architecture_is_refused(tmp_path):
    writer = library.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"a 'qwen2' model; expected .*gemma3, llama"):
        gguf.open_file(tmp_path / "m.gguf")


SIZES = (
    "block_count",
    "attention.head_count",
    "embedding_length",
    "feed_forward_length",
    "attention.key_length",
    "context_length",
    "attention.sliding_window",
)


@pytest.mark.parametrize("key", SIZES)
def test_a_missing_key_is_named(tmp_path, key):
    path = made.gguf_file(tmp_path / "m.gguf", GEMMA3, omit=(key,))
    with pytest.raises(UserError, match=rf"lacks gemma3\.{key}"):
        gguf.open_file(path)


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("value", [0, 4_000_000_000, 2.5])
def test_absurd_sizes_are_refused(tmp_path, key, value):
    path = made.gguf_file(tmp_path / "m.gguf", GEMMA3, **{key: value})
    with pytest.raises(UserError, match=rf"gemma3\.{key} is {value}"):
        gguf.open_file(path)


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        (GEMMA3, "rope.local.freq_base", -1.0, "a positive number"),
        (GEMMA3, "attention.sliding_window_pattern", 0, "a number from 1"),
        (GEMMA3, "attention.sliding_window_pattern", [True] * 3, "each of 7 layers"),
        (GEMMA3, "attention.sliding_window_pattern", [5] * 7, "each of 7 layers"),
        (
            GEMMA3,
            "rope.global.freq_base",
            5e5,
            r"1000000\.0, as rope\.freq_base has it",
        ),
        (GEMMA3, "attention.value_length", 16, "8, as in every such model"),
        (GEMMA3, "attention.scale", 0.5, "no key that we do not know"),
        (made.model("gemma1"), "attention.sliding_window", 16, "no key that we do not"),
        (LLAMA, "attention.sliding_window", 4096, "no key that we do not know"),
        (LLAMA, "expert_count", 8, "0, as in every such model"),
        (LLAMA, "rope.dimension_count", 4, "8, as in every such model"),
        (LLAMA, "rope.scaling.attn_factor", 1.5, r"1\.0, as in every such model"),
    ],
)
def test_what_the_network_does_not_do_is_refused(tmp_path, model, key, value, message):
    path = made.gguf_file(tmp_path / "m.gguf", model, **{key: value})
    with pytest.raises(UserError, match=rf"\.{key} is .*{message}"):
        gguf.open_file(path)


PIECES = {
    "general.architecture": "gemma3",
    "tokenizer.ggml.tokens": ["<pad>", "<eos>", "<bos>", "<unk>"]
    + [f"<0x{i:02X}>" for i in range(256)],
    "tokenizer.ggml.scores": [0.0] * 260,
    "tokenizer.ggml.token_type": [3] * 4 + [6] * 256,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 3,
}
PAIRS = PIECES | {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.merges": ["< >", "< p"],
}


@pytest.mark.parametrize(
    ("fields", "key", "wrong"),
    [(f, "tokens", w) for f in (PIECES, PAIRS) for w in (7, None, 0.5)]
    + [(PIECES, "scores", w) for w in ("x", None, float("nan"), 1e300)]
    + [(f, "token_type", w) for f in (PIECES, PAIRS) for w in ("x", 0.5, -7, 99)]
    + [(PIECES, "tokens", ""), (PAIRS, "merges", 7), (PAIRS, "merges", "x")],
)
def test_an_entry_of_another_type_is_refused(fields, key, wrong):
    key, path = f"tokenizer.ggml.{key}", Path("m.gguf")
    for value in ([*fields[key][:-1], wrong], wrong or 1, "x" * len(fields[key])):
        with pytest.raises(UserError, match=r"m\.gguf|not a SentencePiece model"):
            from_files(gguf_tokenizer.files(path, fields | {key: value}))


@pytest.mark.parametrize("missing", ["tokens", "bos", "pad"])
def test_an_incomplete_vocabulary_is_refused(tmp_path, missing):
    path = made.gguf_file(tmp_path / "m.gguf", GEMMA3, omit=(missing,))
    with pytest.raises(UserError):
        gguf.open_file(path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("bos", "names no bos token"), ("pre", "rule 'None'"), ("merges", "no merges")],
)
def test_incomplete_byte_pairs_are_refused(tmp_path, missing, message):
    path = made.gguf_file(tmp_path / "m.gguf", LLAMA, omit=(missing,))
    with pytest.raises(UserError, match=message):
        gguf.open_file(path)


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "output_norm.weight", "blk.3.attn_q.weight"]
)
def test_a_missing_tensor_is_named(tmp_path, name):
    path = made.gguf_file(tmp_path / "m.gguf", LLAMA, omit=(name,))
    with pytest.raises(UserError, match=rf"no tensor {name}"):
        gguf.open_file(path)


@pytest.mark.parametrize(
    ("model", "extra", "message"),
    [
        (LLAMA, {"blk.4.attn_q.weight": (32, 32)}, r"has the tensor 'blk\.4\."),
        (LLAMA, {"blk.0.attn_q.bias": (32,)}, r"has the tensor 'blk\.0\.attn_q\.bias'"),
        (LLAMA, {"blk.0.attn_q.weight": (32, 64)}, r"attn_q\.weight has shape"),
        (LLAMA, {"rope_freqs.weight": (4,)}, r"rope_freqs\.weight is not a stretch"),
        (GEMMA3, {"output.weight": (512, 32)}, r"has the tensor output\.weight"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, model, extra, message):
    tensors = {name: np.full(shape, 3, np.float32) for name, shape in extra.items()}
    path = made.gguf_file(tmp_path / "m.gguf", model, extra=tensors)
    with pytest.raises(UserError, match=message):
        gguf.open_file(path)
