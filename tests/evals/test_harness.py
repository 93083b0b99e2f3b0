"""lm-eval's numbers on our models are those of plain forward passes."""

import dataclasses
import functools
import importlib.util
import json
from types import SimpleNamespace

import jax
import made_tasks
import numpy as np
import pytest
from made_tasks import CHOICES, TEXTS

from mu_jax.errors import UserError
from mu_jax.evals.adapter import adapter
from mu_jax.evals.harness import Harness
from mu_jax.facts.tokens import padded
from mu_jax.model.generate import generate
from mu_jax.testing import tiny_model
from mu_jax.types import Row, silent

pytestmark = pytest.mark.usefixtures("quick")


@functools.partial(jax.jit, static_argnames="network")
def _logp(network, params, tokens, valid):
    stream, _ = network.stream(params, tokens, valid)
    return jax.nn.log_softmax(network.logits(params, stream[0]))


def logp(model, text, said):
    """[token] log p of each token of `said` behind `text`, and whether all are top."""
    before = model.tokenizer.encode(text).ids
    whole = model.tokenizer.encode(text + said).ids
    rows = np.asarray(
        _logp(model.network, model.params, *padded([whole], 0, 32)),
    )[len(before) - 1 : len(whole) - 1]
    wanted = np.array(whole[len(before) :])
    return rows[np.arange(len(wanted)), wanted], bool((rows.argmax(1) == wanted).all())


@pytest.fixture(scope="module")
def said(tiny):
    """What the tiny model says behind each text; the second is given a wrong answer."""
    ids = [tiny.tokenizer.encode(text).ids for text in TEXTS]
    rows = generate(tiny, *padded(ids, tiny.tokenizer.pad, 32), 3)
    texts = [tiny.tokenizer.decode(row) for row in rows]
    return [texts[0], "no", texts[2]]


@pytest.fixture(scope="module")
def harness(tmp_path_factory, said):
    folder = made_tasks.write(tmp_path_factory.mktemp("tasks") / "own", said=said)
    names = ("mu_both", "mu_generate", "mu_rolling")
    return Harness(names, batch=4, include_path=str(folder))


@pytest.fixture(scope="module")
def loaded(harness):
    return harness.load()


@pytest.fixture(scope="module")
def rows(harness, tiny, loaded):
    return {(r.prompt, r.metric): r for r in harness(tiny, "odd", loaded=loaded)}


def test_rows_say_where_they_are_from(rows):
    assert {(r.model, r.eval, r.split) for r in rows.values()} == {
        ("odd", "harness", "test")
    }
    assert set(rows) == {
        ("mu_choice", "acc"), ("mu_choice", "acc_norm"),
        ("mu_likelihood", "perplexity"), ("mu_likelihood", "acc"), ("mu_both", "acc"),
        ("mu_generate", "exact_match"), ("mu_rolling", "word_perplexity"),
    }  # fmt: skip


def test_multiple_choice(rows, tiny):
    each = [[logp(tiny, q, f" {c}")[0].sum() for c in cs] for q, cs, _ in CHOICES]
    right = [
        float(np.argmax(values) == answer)
        for values, (*_, answer) in zip(each, CHOICES, strict=True)
    ]
    found = rows["mu_choice", "acc"]
    assert found.values == tuple(right) and found.n == 4 and found.low is not None
    by_length = [
        float(np.argmax(np.array(values) / [len(c) for c in choices]) == answer)
        for values, (_, choices, answer) in zip(each, CHOICES, strict=True)
    ]
    assert rows["mu_choice", "acc_norm"].values == tuple(by_length)


def test_likelihood(rows, tiny):
    cut = [text.rpartition(" ") for text in TEXTS]
    each = [logp(tiny, before, f" {last}") for before, _, last in cut]
    mean = np.mean([values.sum() for values, _ in each])
    found = rows["mu_likelihood", "perplexity"]
    np.testing.assert_allclose(found.mean, np.exp(-mean), rtol=1e-5)
    assert found.n == 1 and found.low is None
    assert found.note == "one number for all 3 documents, no mean of theirs"
    best = tuple(float(greedy) for _, greedy in each)
    assert rows["mu_likelihood", "acc"].values == best


def test_a_choice_inside_a_word_is_not_certain(tiny):
    """As one text, "hello world" has no token that begins with the choice."""
    said = ("ld", "king")
    requests = [SimpleNamespace(args=("hello wor", text)) for text in said]
    found = adapter(tiny, 4, 64, silent).loglikelihood(requests)
    for (value, greedy), text in zip(found, said, strict=True):
        before, (_, token) = (tiny.tokenizer.encode(t).ids for t in ("hello wor", text))
        rows = _logp(tiny.network, tiny.params, *padded([[*before, token]], 0, 32))
        np.testing.assert_allclose(value, rows[len(before) - 1, token], rtol=1e-5)
        assert value < -1 and not greedy


def test_text(rows, tiny):
    total = sum(logp(tiny, "", text)[0].sum() for text in TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    found = rows["mu_rolling", "word_perplexity"]
    np.testing.assert_allclose(found.mean, np.exp(-total / words), rtol=1e-5)


def test_generation(rows):
    assert rows["mu_generate", "exact_match"].values == (1.0, 0.0, 1.0)


def test_a_group_has_all_documents_of_its_tasks(rows):
    found = rows["mu_both", "acc"]
    parts = [rows[name, "acc"].values for name in ("mu_choice", "mu_likelihood")]
    assert found.values == parts[0] + parts[1]
    assert found.note == "weighs documents, not tasks, equally"


def test_loaded_tasks_keep_nothing_of_a_model(harness, loaded, rows, tiny):
    other = dataclasses.replace(tiny, params=tiny_model(seed=1).params)
    changed = harness(other, "odd", loaded=loaded)
    assert [r.values for r in changed] != [r.values for r in rows.values()]
    assert harness(tiny, "odd", loaded=loaded) == list(rows.values())


def test_limit_and_examples(harness, tiny, loaded):
    few = dataclasses.replace(harness, tasks=("mu_choice",), limit=2, num_fewshot=1)
    found = few(tiny, "odd")
    assert {r.n for r in found} == {2}
    part = few.load()["mu_choice"]
    assert few.settings(part) == few.settings(few.load()["mu_choice"])
    assert few.settings(part) != harness.settings(loaded["mu_both"])
    more = dataclasses.replace(few, limit=3)
    assert few.settings(part) != more.settings(more.load()["mu_choice"])
    # An example stands in front: the same questions, other likelihoods.
    request = next(iter(part["tasks"].values()))
    request.set_fewshot_seed(0)
    request.build_all_requests(limit=1)
    context = request.instances[0].args[0]
    assert context.endswith("\n\none two") and context.count("\n\n") == 1


def test_what_cannot_be_asked_is_refused_at_once(tmp_path, monkeypatch):
    bare = {"output_type": "generate_until", "doc_to_text": "", "doc_to_target": ""}
    draws = {**bare, "generation_kwargs": {"do_sample": True, "temperature": 1.0}}
    extra = {
        "mu_draws": (draws, [{"text": "a"}]),
        "mu_code": ({**bare, "unsafe_code": True}, [{"text": "a"}]),
        "mu_away": ({**bare, "dataset_path": "nobody/nothing"}, [{"text": "a"}]),
    }
    folder = str(made_tasks.write(tmp_path / "own", extra))
    ask = lambda name: Harness((name,), include_path=folder).load()
    with pytest.raises(UserError, match="'mu_draws', which draws its answers"):
        ask("mu_draws")
    with pytest.raises(UserError, match="'mu_code', which runs code"):
        ask("mu_code")
    with pytest.raises(UserError, match=r"'mu_away' cannot be loaded \(.*; expected"):
        ask("mu_away")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lm-eval is not installed; .*\[harness\]"):
        ask("mu_choice")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tasks": ()}, "no tasks"),
        ({"limit": 0}, "limit 0; expected at least 1"),
        ({"num_fewshot": -1}, "num_fewshot -1; expected at least 0"),
        ({"batch": 0}, "batch 0; expected at least 1"),
        ({"context": 1}, "context 1; expected at least 2"),
        ({"include_path": "nowhere"}, "no directory nowhere"),
    ],
)
def test_wrong_settings_are_refused(knobs, message):
    with pytest.raises(UserError, match=message):
        Harness(**{"tasks": ("sciq",), **knobs})


def test_an_unknown_task_gets_near_ones(harness):
    """Among lm-eval's own as well."""
    asked = dataclasses.replace(harness, tasks=("mu_generate", "hellaswg"))
    with pytest.raises(UserError, match=r"no task called 'hellaswg'.*hellaswag"):
        asked.load()


QUESTIONS = """\
The capital of France is|Paris|London|Madrid|Rome
The opposite of hot is|cold|warm|wet|loud
Two plus two equals|four|five|seven|nine
A baby dog is called a|puppy|kitten|calf|chick
The color of the sky on a clear day is|blue|green|red|brown
The first month of the year is|January|March|July|October
Water freezes into|ice|steam|sand|wood
Bees make|honey|milk|bread|wool
The sun rises in the|east|west|south|north
A triangle has three|sides|wheels|colors|names
People read|books|shoes|spoons|chairs
The largest ocean is the|Pacific|Atlantic|Indian|Arctic"""


def test_the_real_model_beats_chance(tmp_path, gemma):
    """A dozen questions of four answers; a guess has 9 right once in 2,500 times."""
    documents = []
    for number, line in enumerate(QUESTIONS.splitlines()):
        question, *choices = line.split("|")  # the right one first
        label = number % 4
        choices = choices[-label:] + choices[:-label] if label else choices
        documents.append({"question": question, "choices": choices, "label": label})
    settings = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
    }
    extra = {"mu_school": (settings, documents)}
    folder = made_tasks.write(tmp_path / "own", extra)
    found: list[Row] = Harness(("mu_school",), include_path=str(folder))(gemma, "base")
    accuracy = next(row for row in found if row.metric == "acc")
    assert accuracy.n == 12 and accuracy.mean * 12 >= 9
    assert json.loads(json.dumps(dataclasses.asdict(accuracy)))["n"] == 12
