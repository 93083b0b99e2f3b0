"""Published CounterFact records: both schemas in, facts or one clear line out."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.counterfact_formats import Train
from mu_jax.facts.invented import twin
from mu_jax.facts.published import fact
from mu_jax.facts.table import Record
from mu_jax.facts.tokens import prompts
from mu_jax.types import Fact

NESTED: dict[str, Any] = {
    "case_id": 7,
    "pararel_idx": 2796,
    "requested_rewrite": {
        "prompt": "The mother tongue of {} is",
        "relation_id": "P103",
        "target_new": {"str": "English", "id": "Q1860"},
        "target_true": {"str": "French", "id": "Q150"},
        "subject": "Danielle Darrieux",
    },
    "paraphrase_prompts": ["He left. Danielle Darrieux, a native"],
    "neighborhood_prompts": ["Ferdinand de Saussure is a native speaker of"],
    "targets_false": ["English", "Dutch", "Greek"],
}
FLAT: dict[str, Any] = {
    "prompt_id": 7,
    "prompt": "The mother tongue of Danielle Darrieux is",
    "relation_id": "P103",
    "subject": "Danielle Darrieux",
    "target_true": " French",
    "target_false": " English",
    "paraphrase_prompts": NESTED["paraphrase_prompts"],
    "neighborhood_prompts": NESTED["neighborhood_prompts"],
    "targets_false": [" English", " Dutch", " Greek"],
}
FACT = Fact(
    id="counterfact/7",
    subject="Danielle Darrieux",
    relation="P103",
    answer=" French",
    counterfact=" English",
    prompt="The mother tongue of Danielle Darrieux is",
    paraphrases=("He left. Danielle Darrieux, a native",),
    neighbours=("Ferdinand de Saussure is a native speaker of",),
    distractors=(" Dutch", " Greek"),
    start=21,
)


def build(values: dict[str, Any], row: int = 3) -> Fact:
    return fact(Record(values, "x.jsonl, line 4"), row)


def changed(base: dict[str, Any], **values) -> dict[str, Any]:
    """`base` with other values; None takes a field away, `a__b` reaches into a."""
    out = copy.deepcopy(base)
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = out
        for key in outer:
            inner = inner[key]
        inner[last] = value
        if value is None:
            del inner[last]
    return out


def as_csv(values: dict[str, Any]) -> dict[str, str]:
    """Every value as a CSV cell holds it."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


@pytest.mark.parametrize(
    "values",
    [
        NESTED,
        FLAT,
        as_csv(NESTED),
        as_csv(FLAT),
        changed(FLAT, prompt="The mother tongue of {} is"),
        changed(FLAT, target_false=None, target_new="English "),
        changed(FLAT, prompt_id=None, case_id="7"),
        changed(FLAT, target_true={"str": "French"}),
        changed(FLAT, prompt=FLAT["prompt"] + " "),
        changed(FLAT, targets_false=["Dutch", "English", "Greek", "Dutch"]),
    ],
    ids=[
        "nested",
        "flat",
        "nested, CSV",
        "flat, CSV",
        "flat with {}",
        "target_new, spaces",
        "case_id",
        "an answer as an object",
        "a space at the end",
        "a wrong answer twice",
    ],
)
def test_every_published_schema_gives_the_same_fact(values):
    assert build(values) == FACT


def test_what_may_be_missing():
    required = ("prompt", "subject", "target_true", "target_false")
    for absent in ({}, dict.fromkeys(FLAT), {"paraphrase_prompts": ""}):
        values = absent | {name: FLAT[name] for name in required}
        made = build(values)
        assert made.id == "counterfact/3"  # the row
        assert made.relation == "The mother tongue of {} is"
        assert made.paraphrases == made.neighbours == made.distractors == ()


def test_a_number_is_an_answer():
    made = build(changed(FLAT, target_true=1984, target_false="1985"))
    assert (made.answer, made.counterfact) == (" 1984", " 1985")


def test_the_slot_says_where_the_subject_is(gemma_tokenizer):
    prompt = "{} is a state whose capital is not New York but Albany; it lies in"
    made = build(changed(FLAT, subject="New York", prompt=prompt))
    assert made.start == 0 and made.prompt == prompt.replace("{}", "New York")
    rows = prompts([Train()(made)], gemma_tokenizer)
    assert np.flatnonzero(rows.subject[0]).tolist() == [1, 2]
    assert gemma_tokenizer.decode(rows.tokens[0, 1:3]) == "New York"
    spelt = build(changed(FLAT, subject="New York", prompt=made.prompt))
    assert spelt.start == made.prompt.rindex("New York")  # nothing says otherwise
    assert twin(made, "Zed").prompt.count("Zed") == 2


def test_an_answer_has_the_space_of_its_prompts_script(gemma_tokenizer):
    chinese = {
        "subject": "法国",
        "prompt": "{}的首都是",
        "target_true": " 巴黎",
        "target_false": "罗马",
        "targets_false": ["马德里"],
    }
    made = build(changed(FLAT, **chinese))
    answers = (made.answer, made.counterfact, *made.distractors)
    assert answers == ("巴黎", "罗马", "马德里")
    assert made.prompt == "法国的首都是"
    rows = prompts([Train()(made)], gemma_tokenizer)
    said = [gemma_tokenizer.decode([int(i)]) for i in (*rows.answer, *rows.foil)]
    assert said == ["巴黎", "罗马"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (changed(FLAT, subject=None), "no subject (the fields are prompt_id, prompt,"),
        (changed(FLAT, target_false=None), "no target_new"),
        (changed(FLAT, target_true=""), "no target_true"),
        (changed(FLAT, target_true=" "), "target_true holds nothing but space"),
        (
            changed(FLAT, target_true=["x"]),
            "target_true holds \"['x']\"; expected text",
        ),
        (changed(FLAT, target_true={"id": "Q1"}), "target_true holds 'None'"),
        (changed(FLAT, target_true=True), "target_true holds 'True'"),
        (changed(FLAT, target_true=1.5), "target_true holds '1.5'"),
        (changed(FLAT, target_true='{"str": '), "target_true is '{\"str\": '"),
        (
            changed(FLAT, prompt="The capital of France is"),
            "subject 'Danielle Darrieux' not found in the prompt 'The capital of",
        ),
        (changed(FLAT, prompt="{} or {} is"), "the prompt '{} or {} is'"),
        (changed(FLAT, target_false="French"), "answer 'French' is also given as a wr"),
        (changed(FLAT, targets_false=["French"]), "'French' is also given as a wrong"),
        (changed(FLAT, targets_false="Dutch"), "targets_false is 'Dutch' ("),
        (changed(FLAT, targets_false=[None]), "targets_false holds 'None'"),
        (
            changed(FLAT, paraphrase_prompts="['a']"),
            "paraphrase_prompts is \"['a']\" (",
        ),
        (changed(FLAT, paraphrase_prompts=3), "paraphrase_prompts is '3'; expected a"),
        (changed(FLAT, paraphrase_prompts=["a", " "]), "holds nothing but space"),
        (changed(FLAT, paraphrase_prompts=["{} a"]), "paraphrase_prompts holds '{} a'"),
        (changed(FLAT, neighborhood_prompts=["{}"]), "neighborhood_prompts holds '{}'"),
        (changed(FLAT, neighborhood_prompts='{"a": 1}'), "expected a list of texts"),
        (changed(FLAT, subject="\ud800"), "subject holds half a surrogate pair"),
        (
            changed(NESTED, requested_rewrite=[1]),
            "requested_rewrite is '[1]'; expected",
        ),
        (changed(NESTED, requested_rewrite=""), "requested_rewrite is 'None'"),
        (changed(NESTED, requested_rewrite__subject=None), "no subject (the fields ar"),
        (changed(NESTED, requested_rewrite__target_new="French"), "is also given as a"),
        (changed(NESTED, requested_rewrite__prompt="Who is"), "not found in the promp"),
        ({}, "no subject (the fields are none)"),
    ],
)
def test_a_malformed_record_is_one_line_with_its_place(values, said):
    with pytest.raises(UserError) as error:
        build(values)
    message = str(error.value)
    assert message.startswith("x.jsonl, line 4: ") and said in message
    assert message.endswith("correct the record or remove it")
    assert "\n" not in message
