"""Small checkpoints in other formats, made as their own tools make them."""

import dataclasses
import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mu_jax.checkpoints.huggingface.names import to_huggingface
from mu_jax.model.model import Model
from mu_jax.model.params import shapes
from mu_jax.model.specs import STRETCHED
from mu_jax.testing import tiny_llama, tiny_model, tiny_spec

SPECS = {
    "gemma1": tiny_spec(1, kv_heads=1),
    "gemma2": tiny_spec(2, kv_heads=2),
    "gemma3": tiny_spec(3, kv_heads=4),
    "llama3": dataclasses.replace(tiny_llama(), rope_stretch=STRETCHED),
}
GGUF_NAMES = {
    "attention/query": "attn_q",
    "attention/key": "attn_k",
    "attention/value": "attn_v",
    "attention/output": "attn_output",
    "attention/query_norm": "attn_q_norm",
    "attention/key_norm": "attn_k_norm",
    "mlp/gate": "ffn_gate",
    "mlp/up": "ffn_up",
    "mlp/down": "ffn_down",
    "pre_attention_norm": "attn_norm",
    "post_attention_norm": "post_attention_norm",
    "pre_mlp_norm": "ffn_norm",
    "post_mlp_norm": "post_ffw_norm",
}


def model(kind: str) -> Model:
    return tiny_model(SPECS[kind], seed=len(kind))


def plain(params) -> dict[str, np.ndarray]:
    return {k: np.asarray(a.unwrap(*a.named_shape)) for k, a in params.items()}


def letters() -> list[str]:
    """The 256 byte-level letters."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer_json(specials=("<|begin|>", "<|end|>")) -> bytes:
    """A byte-level tokenizer with a few merges; 258 and 259 are begin and end."""
    vocabulary = {letter: i for i, letter in enumerate([*letters(), "Ġt", "he"])}
    made = Tokenizer(models.BPE(vocabulary, [("Ġ", "t"), ("h", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(specials))
    return made.to_str().encode()


def words(path: Path, **settings) -> None:
    """Writes that tokenizer's files."""
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", **settings}
    (path / "tokenizer.json").write_bytes(tokenizer_json())
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def directory(path: Path, made: Model, **changes) -> Path:
    """A Hugging Face directory of a model; `changes` are to its config."""
    path.mkdir(exist_ok=True)
    config, tensors = to_huggingface(made.spec, made.params)
    (path / "config.json").write_text(json.dumps({**config, **changes}))
    save_file(tensors, path / "model.safetensors")
    words(path)
    return path


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows in llama.cpp's order."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def gguf_file(
    path: Path,
    made: Model,
    kind: gguf.GGMLQuantizationType | None = None,
    *,
    omit: tuple[str, ...] = (),
    extra: dict[str, np.ndarray] | None = None,
    split: int = 0,
    **changes,
) -> Path:
    """A GGUF file of a model, as llama.cpp's converter lays it out.

    With `split` it is in parts of so many tensors, under their names.
    """
    spec = made.spec
    llama = spec.activation == "silu"
    if llama:
        architecture = "llama"
    else:
        generation = 1 if not spec.post_norms else 3 if spec.qk_norm else 2
        architecture = "gemma" if generation == 1 else f"gemma{generation}"
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    ints = {
        "block_count": spec.layers,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.head_groups,
        "embedding_length": spec.embedding,
        "feed_forward_length": spec.neurons,
        "attention.key_length": spec.projection,
        "context_length": spec.context,
    }
    if any(spec.windows):
        ints["attention.sliding_window"] = next(w for w in spec.windows if w)
    floats = {"attention.layer_norm_rms_epsilon": spec.norm_epsilon}
    if architecture in ("gemma3", "llama"):
        floats["rope.freq_base"] = max(spec.wavelengths)
    if architecture == "gemma3":
        floats["rope.scaling.factor"] = max(spec.rope_scales)
    for key, value in {**ints, **floats, **changes}.items():
        if key not in omit:
            adders = {int: writer.add_uint32, float: writer.add_float32}
            add = adders.get(type(value), writer.add_array)
            add(f"{architecture}.{key}", value)
    (_byte_pairs if llama else _pieces)(writer, spec.vocabulary, omit)
    tensors = {**_tensors(made, llama), **(extra or {})}
    for name, value in tensors.items():
        if name in omit:
            continue
        if kind is None or value.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(value, np.float32))
        else:
            data = gguf.quantize(np.ascontiguousarray(value), kind)
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


READS = ("attention/query", "attention/key", "attention/value")


def _tensors(made: Model, llama: bool) -> dict[str, np.ndarray]:
    spec, params = made.spec, plain(made.params)
    out = {"token_embd.weight": params["embedder"]}
    out["output_norm.weight"] = params["final_norm"]
    if not spec.tied:
        out["output.weight"] = params["unembedder"]
    if spec.rope_stretch:
        out["rope_freqs.weight"] = rope_factors(spec)
    for label in shapes(spec):
        for i in range(spec.layers if label in GGUF_NAMES else 0):
            value = params[label][i]
            if label.startswith(("attention/", "mlp/")) and value.ndim > 1:
                value = np.moveaxis(value, -2, 0) if label in READS else value
                n = 3 if label == "attention/output" else 1
                value = value.reshape(int(np.prod(value.shape[:n])), -1).T
            heads = {"attention/query": spec.heads, "attention/key": spec.head_groups}
            if llama and label in heads:
                value = interleaved(value, heads[label])
            out[f"blk.{i}.{GGUF_NAMES[label]}.weight"] = value
    return out


def rope_factors(spec) -> np.ndarray:
    """Llama 3's factors, reckoned wavelength by wavelength."""
    stretch, out = spec.rope_stretch, []
    for i in range(0, spec.projection, 2):
        length = 2 * np.pi * spec.wavelengths[0] ** (i / spec.projection)
        if length < stretch.context / stretch.high:
            out.append(1.0)
        elif length > stretch.context / stretch.low:
            out.append(stretch.factor)
        else:
            smooth = stretch.context / length - stretch.low
            smooth /= stretch.high - stretch.low
            out.append(1 / ((1 - smooth) / stretch.factor + smooth))
    return np.array(out, np.float32)


def _pieces(writer, size: int, omit) -> None:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    names += ["<start_of_turn>", "<end_of_turn>", "<b>"]
    names += [f"▁w{i}" for i in range(size - len(names))]
    writer.add_tokenizer_model("llama")
    if "tokens" not in omit:
        writer.add_token_list(names)
        writer.add_token_scores([-float(i) for i in range(size)])
        kinds = [3] * 4 + [6] * 256 + [3, 3, 4]
        writer.add_token_types(kinds + [1] * (size - len(kinds)))
    for name, i in (("pad", 0), ("eos", 1), ("bos", 2)):
        if name not in omit:
            getattr(writer, f"add_{name}_token_id")(i)
    writer.add_unk_token_id(3)
    writer.add_eot_token_id(names.index("<end_of_turn>"))


def _byte_pairs(writer, size: int, omit) -> None:
    names = [*letters(), "Ġt", "he"]
    names += [f"<|special{i}|>" for i in range(size - len(names))]
    writer.add_tokenizer_model("gpt2")
    if "pre" not in omit:
        writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(names)
    writer.add_token_types([1] * 258 + [3] * (size - 258))
    if "merges" not in omit:
        writer.add_token_merges(["Ġ t", "h e"])
    if "bos" not in omit:
        writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)
