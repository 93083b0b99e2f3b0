"""CounterFact: files and folders read, formats asked, splits cut."""

import csv
import dataclasses
import json
import random
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import datasets
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.facts.choice import LETTERS
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.counterfact_formats import SHOTS, PaperChoice
from mu_jax.facts.mentions import find
from mu_jax.facts.tokens import distinct, prompts
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Fact, Facts

SHIPPED = Path(str(resources.files("mu_jax.facts") / "data/counterfact.jsonl"))
FORMATS = CounterFact().templates
TRAIN, PARAPHRASES, NEIGHBOURS, LISTED, FEWSHOT, CHOICE, REVERSED = FORMATS
PAPER = PaperChoice()
CITIES = {"Paris": "France", "Rome": "Italy", "Cairo": "Egypt", "Oslo": "Norway"}


def nested(city: str, number: int) -> dict:
    others = [land for land in CITIES.values() if land != CITIES[city]]
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "{} is the capital of",
            "relation_id": "P1376",
            "subject": city,
            "target_true": {"str": CITIES[city]},
            "target_new": {"str": others[0]},
        },
        "paraphrase_prompts": [f"It rained. {city}, the capital of", f"{city} governs"],
        "neighborhood_prompts": ["The Louvre is in", "The Nile is in", "It is in"],
        "targets_false": others,
    }


def flat(city: str, number: int) -> dict:
    whole = nested(city, number)
    rewrite = whole.pop("requested_rewrite")
    return {
        "prompt_id": whole.pop("case_id"),
        "prompt": rewrite["prompt"].replace("{}", city),
        "relation_id": "P1376",
        "subject": city,
        "target_true": f" {rewrite['target_true']['str']}",
        "target_false": f" {rewrite['target_new']['str']}",
        **whole,
    }


def write(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(records))
        case ".jsonl":
            path.write_text("".join(json.dumps(r) + "\n" for r in records))
        case ".parquet":
            datasets.Dataset.from_list(records).to_parquet(path)
        case ".csv":
            cell = lambda v: v if isinstance(v, str) else json.dumps(v)
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(records[0])
                writer.writerows([cell(v) for v in r.values()] for r in records)


def made(i: int, answer=" x", wrong=" y", distractors=(" z", " w")) -> Fact:
    """A fact without a file."""
    return Fact(
        id=f"counterfact/{i}",
        subject=f"Subject {i}",
        relation="P1",
        answer=answer,
        counterfact=wrong,
        prompt=f"Fact {i}: Subject {i} is",
        paraphrases=(f"Well. Subject {i} is", f"One says that Subject {i} is"),
        neighbours=("Other is", "Another is", "A third is"),
        distractors=distractors,
        rival=f"Another {i}",
    )


# ---- what is read


@pytest.mark.parametrize("schema", [nested, flat], ids=["nested", "flat"])
@pytest.mark.parametrize(
    "name",
    ["x.json", "x.jsonl", "x.csv", "x.parquet"]
    + [f"set/data/train-00000-of-00001.{s}" for s in ("jsonl", "csv", "parquet")],
)
def test_every_schema_in_every_file_gives_the_same_facts(tmp_path, schema, name):
    write(tmp_path / name, [schema(c, i) for i, c in enumerate(CITIES)])
    path = tmp_path / name.split("/")[0]
    facts = CounterFact(path=str(path)).load()
    assert [f.id for f in facts] == [f"counterfact/{i}" for i in range(4)]
    assert {f.rival for f in facts} <= set(CITIES)
    assert dataclasses.replace(facts[1], rival="") == Fact(
        id="counterfact/1",
        subject="Rome",
        relation="P1376",
        answer=" Italy",
        counterfact=" France",
        prompt="Rome is the capital of",
        paraphrases=("It rained. Rome, the capital of", "Rome governs"),
        neighbours=("The Louvre is in", "The Nile is in", "It is in"),
        distractors=(" Egypt", " Norway"),
        start=0,
    )


def test_a_split_is_read_by_its_name(tmp_path):
    for name, city in (("one", "Rome"), ("two", "Oslo")):
        write(tmp_path / f"data/{name}-00000-of-00001.parquet", [nested(city, 0)])
    (fact,) = CounterFact(path=str(tmp_path), hub_split="two").load()
    assert fact.subject == "Oslo"
    with pytest.raises(UserError, match=r"has the splits one, two.*hub-split"):
        CounterFact(path=str(tmp_path)).load()


def test_a_file_has_no_splits(tmp_path):
    write(tmp_path / "x.jsonl", [nested("Rome", 0)])
    with pytest.raises(UserError, match=r"facts\.hub_split 'train' of the file"):
        CounterFact(path=str(tmp_path / "x.jsonl"), hub_split="train").load()


def test_an_id_given_twice_is_refused_and_rows_count_without_any(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, [nested("Rome", 5), nested("Oslo", 6), nested("Cairo", 5)])
    with pytest.raises(UserError, match=r"x\.jsonl, line 3: the id '5' once more"):
        CounterFact(path=str(path)).load()
    write(path, [{**flat(c, 0), "prompt_id": None} for c in CITIES])
    ids = [f.id for f in CounterFact(path=str(path)).load()]
    assert ids == [f"counterfact/{i}" for i in range(4)]


def test_a_malformed_record_is_named_with_file_and_line(tmp_path):
    records = [flat("Rome", 0), flat("Oslo", 1)]
    records[1]["prompt"] = "Bergen is not the capital of"
    for suffix, place in (("jsonl", "line 2"), ("csv", "line 3"), ("json", "record 2")):
        path = tmp_path / f"x.{suffix}"
        write(path, records)
        with pytest.raises(UserError) as error:
            CounterFact(path=str(path)).load()
        said = f"{path}, {place}: subject 'Oslo' not found in the prompt 'Bergen"
        assert str(error.value).startswith(said)


@pytest.mark.parametrize("path", ["nope.jsonl", "/nope", "./a/b", "a/b/c"])
def test_no_file_is_refused(path):
    with pytest.raises(UserError, match=r"no file"):
        CounterFact(path=path).load()


def test_distractors_are_drawn_from_the_same_relation(tmp_path):
    records = [{**flat(c, i), "targets_false": None} for i, c in enumerate(CITIES)]
    other = {**flat("Rome", 9), "relation_id": "P2", "targets_false": None}
    path = tmp_path / "x.jsonl"
    write(path, [*records, other])
    facts = CounterFact(path=str(path)).load()
    lands = {f" {land}" for land in CITIES.values()}
    for fact in facts[:4]:
        assert set(fact.distractors) == lands - {fact.answer, fact.counterfact}
    assert facts[4].distractors == ()  # its relation has no other answers
    shuffled = random.Random(1).sample(records, len(records))
    write(path, [other, *shuffled])
    again = CounterFact(path=str(path)).load()
    assert sorted(again, key=lambda f: f.id) == sorted(facts, key=lambda f: f.id)


# ---- formats


def test_the_training_prompt_comes_first_and_names_differ():
    names = [f.name for f in FORMATS]
    first = ["train", "paraphrase", "neighbours", "listed"]
    assert names == [*first, "fewshot", "mcq", "reversed"]


@pytest.mark.parametrize("format", (*FORMATS, PAPER), ids=lambda f: f.name)
def test_the_subject_stands_at_its_span_and_the_text_ends_at_an_answer(format):
    asked = [q for i in range(20) for q in format.questions(made(i))]
    assert asked
    for question in asked:
        assert question.text == question.text.rstrip()
        marked = question.text[question.start : question.stop]
        assert marked == question.subject
        assert question.subject.startswith("" if format is NEIGHBOURS else "Subject ")
        assert len(set(question.options)) == len(question.options)
        assert {question.answer, question.foil} <= set(question.options)
        assert question.answer != question.foil
    assert len({len(q.options) for q in asked}) == 1
    rows = prompts(asked, ToyTokenizer(1 << 20))
    assert rows.subject.any(axis=1).all() == (format is not NEIGHBOURS)


def test_how_many_questions_each_format_asks():
    nothing = dict.fromkeys(("paraphrases", "neighbours", "distractors"), ())
    bare = dataclasses.replace(made(0), **nothing, rival="")
    assert [len(f.questions(made(0))) for f in FORMATS] == [1, 2, 3, 1, 1, 4, 2]
    assert [len(f.questions(bare)) for f in FORMATS] == [1, 0, 0, 0, 1, 0, 0]
    one = dataclasses.replace(bare, distractors=(" z",))
    assert LISTED.questions(one) == CHOICE.questions(one) == PAPER.questions(one) == ()


def test_train_is_the_prompt_and_the_first_question():
    fact = made(3)
    assert TRAIN.questions(fact) == (TRAIN(fact),)
    assert TRAIN(fact).text == fact.prompt
    assert TRAIN(fact).options == (fact.answer, fact.counterfact)
    alone = CounterFact().alone(fact)
    assert (alone.text, alone.subject, alone.start) == (fact.subject, fact.subject, 0)


def test_a_paraphrase_without_the_subject_marks_none():
    fact = dataclasses.replace(made(0), paraphrases=("It is",))
    (question,) = PARAPHRASES.questions(fact)
    assert (question.text, question.subject) == ("It is", "")


@pytest.mark.parametrize("format", [LISTED, PAPER], ids=["listed", "mcq_paper"])
def test_every_option_is_written_out_and_the_right_one_is_the_answer(format):
    fact = made(0, " Italy", " Spain", (" Japan", " Egypt"))
    (question,) = format.questions(fact)
    for land in ("Italy", "Spain", "Japan", "Egypt"):
        assert question.text.count(land) == 1
    if format is PAPER:
        for name, letter in ((" Italy", question.answer), (" Spain", question.foil)):
            assert f"\n{letter.strip()}.{name}\n" in question.text
        assert question.options == LETTERS


def test_the_choice_is_in_the_papers_words():
    (question,) = PAPER.questions(made(0, " x", " y"))
    solved, _, asked = question.text.rpartition("Help me")
    assert re.fullmatch(r"Help me.* Answer: [ABCD]\n\n", solved, re.DOTALL)
    asked = f"Help me{asked}"
    head, lines, tail = asked.split("\n\n")[0], *asked.split("\n\n")[2:]
    assert head == "Help me answer the following multiple choice question:"
    assert [line[:3] for line in lines.split("\n")] == ["A. ", "B. ", "C. ", "D. "]
    assert tail == (
        "Please respond with the letter of the correct answer, A, B, C, or D. Answer:"
    )


@pytest.mark.parametrize("format", [LISTED, PAPER], ids=["listed", "mcq_paper"])
def test_no_place_among_the_options_is_right_too_often(format):
    places = Counter()
    for i in range(400):
        fact = made(i, " apple", " pear", (" plum", " fig"))
        (question,) = format.questions(fact)
        options = ("apple", "pear", "plum", "fig")
        order = sorted(options, key=question.text.rindex)
        places[order.index("apple")] += 1
        if format is PAPER:
            assert question.answer == LETTERS[order.index("apple")]
    assert len(places) == 4 and max(places.values()) < 0.33 * 400


def test_the_papers_examples_can_be_the_reserved_facts():
    paper = PaperChoice(tuple(made(i) for i in range(1, 9)))
    (question,) = paper.questions(made(0))
    parts = question.text.split("Help me")[1:]
    assert len(parts) == 9 and "Subject 0 is" in parts[8]
    for i, part in enumerate(parts[:8], 1):
        letter = part[-3]
        assert f"Subject {i} is ..." in part and f"\n{letter}. x\n" in part
    assert paper.questions(made(5)) == ()


def test_the_order_of_options_depends_on_the_fact_alone():
    facts = [made(i) for i in range(20)]
    once = [PAPER.questions(f) for f in facts]
    assert [PAPER.questions(f) for f in reversed(facts)] == once[::-1]


# ---- splits


def known(n: int) -> list[tuple[Fact, float]]:
    return [(made(i), 0.9) for i in range(n)]


def test_forgotten_come_first_and_reserved_last():
    found = CounterFact(forget=10, reserved=5, heldout=0.2).split(known(35))
    ids = {
        s: [int(f.id.partition("/")[2]) for f in found.split(s)] for s in found.splits
    }
    assert ids == {
        "forget": list(range(10)),
        "retain": list(range(10, 26)),
        "heldout": list(range(26, 30)),
        "reserved": list(range(30, 35)),
    }


@given(
    n=st.integers(0, 60),
    parts=st.integers(1, 4),
    size=st.integers(1, 6),
    reserved=st.integers(0, 20),
    heldout=st.floats(0.05, 0.9),
)
def test_splits_are_disjoint_and_hold_every_known_fact(
    n, parts, size, reserved, heldout
):
    source = CounterFact(
        forget=parts * size, parts=parts, reserved=reserved, heldout=heldout
    )
    try:
        found = source.split(known(n))
    except UserError:
        assume(False)
    assert [k.fact for k in found.known] == [f for f, _ in known(n)]
    assert len(found.forget) == parts * size
    assert len(found.split("reserved")) == reserved
    cut = source.partitions(found)
    assert len(cut) == parts and {len(part) for part in cut} == {size}
    assert tuple(f for part in cut for f in part) == found.forget


@pytest.mark.parametrize(
    "settings", [{"forget": 9}, {"forget": 12}, {"reserved": 9}, {"reserved": 30}]
)
def test_too_few_known_facts_are_refused(settings):
    settings = {"forget": 1, **settings}
    with pytest.raises(
        UserError, match=r"10 known facts; expected at least \d+: \d+ to forget"
    ):
        CounterFact(**settings).split(known(10))


def test_facts_that_do_not_fit_into_the_parts_are_refused():
    found = CounterFact(forget=4).split(known(20))
    with pytest.raises(UserError, match=r"4 forgotten facts in facts\.parts = 3"):
        CounterFact(forget=6, parts=3).partitions(found)
    with pytest.raises(UserError, match="0 forgotten facts"):
        CounterFact().partitions(Facts(()))


@pytest.mark.parametrize(
    "settings",
    [
        {"forget": 0},
        {"parts": 0},
        {"parts": 3},
        {"reserved": -1},
        {"heldout": 0.0},
        {"heldout": 1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=rf"facts\.{name}"):
        CounterFact(**settings)


# ---- the shipped facts


@pytest.fixture(scope="module")
def shipped():
    return CounterFact().load()


def test_the_shipped_facts_obey_their_schema(shipped):
    records = [json.loads(x) for x in SHIPPED.read_text("utf-8").splitlines()]
    assert all(len(set(r["targets_false"])) == 3 for r in records)
    assert len({str(r["case_id"]) for r in records}) == len(records) == len(shipped)
    assert len({f.id for f in shipped}) == len(shipped) >= 250
    assert len({(f.subject, f.relation) for f in shipped}) == len(shipped)
    for fact in shipped:
        assert len(set(fact.paraphrases)) == 2 and len(set(fact.neighbours)) == 3
        assert len({fact.answer, fact.counterfact, *fact.distractors}) == 4
        for text in (fact.prompt, *fact.paraphrases):
            assert find(text, fact.subject) is not None
        assert not any(find(text, fact.subject) for text in fact.neighbours)


def test_the_shipped_facts_can_be_asked_in_every_format(shipped):
    for fact in shipped:
        asked = [1, 2, 3, 1, 1, 4, 2 * bool(fact.rival)]
        assert [len(f.questions(fact)) for f in FORMATS] == asked
    tokenizer = ToyTokenizer(1 << 20)
    kept = distinct(shipped, tokenizer)
    assert len(kept) >= 0.9 * len(shipped)
    for format in FORMATS:
        prompts([q for f in kept for q in format.questions(f)], tokenizer)


def test_the_solved_examples_are_none_of_the_shipped_facts(shipped):
    names = {f.subject for f in shipped} | {f.relation for f in shipped}
    assert not names & {name for s in SHOTS for name in (s.subject, s.rival)}
    assert not {f.prompt for f in shipped} & {s.prompt for s in SHOTS}
