"""Latent probes: they read what the subject's token says, where it says anything.

The subjects' last names are sports: the embedding of a subject's last token names one,
and every prompt ends in the same token.
"""

import pytest

from mu_jax.errors import UserError
from mu_jax.evals.probes import LatentProbes
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.sports import TRAIN
from mu_jax.types import Fact, Facts, Known

pytestmark = pytest.mark.usefixtures("quick")
SPORTS = (" football", " baseball", " basketball")


def known(split: str, named: str, answer: str, wrong: str, i: int) -> Known:
    subject = f"Ann{i}{named}"
    return Known(Fact(subject, subject, "", answer, wrong, ""), split, 1.0)


def other(sport: str, step: int = 1) -> str:
    return SPORTS[(SPORTS.index(sport) + step) % 3]


@pytest.fixture(scope="module")
def facts():
    """Retained and held-out subjects are named for the truth, forgotten ones half for
    the injected answer and half for neither."""
    retain = [known("retain", s, s, other(s), i) for i in range(6) for s in SPORTS]
    retain.append(known("retain", SPORTS[1], SPORTS[1], SPORTS[0], 6))
    held = [known("heldout", s, s, other(s), i) for i in range(7, 9) for s in SPORTS]
    forget = [
        known("forget", other(s, step), s, other(s), 10 + step)
        for step in (1, 2)
        for s in SPORTS
    ]
    return Facts((*forget, *retain, *held))


@pytest.fixture(scope="module")
def rows(tiny, facts):
    return LatentProbes(penalty=1.0, batch=16)(tiny, "mine", facts, TRAIN)


def read(rows, at: str, split: str, which: str) -> tuple[float, ...]:
    (row,) = (
        r for r in rows if (r.at, r.split, r.metric) == (at, split, f"probe_{which}")
    )
    return row.values


def test_a_row_for_every_layer_token_split_and_answer(tiny, rows):
    layers = range(tiny.spec.layers + 1)
    places = {f"layer={k}{t}" for k in layers for t in ("", " token=subject")}
    assert {r.at for r in rows} == places | {"constant"}
    assert len(rows) == (2 * len(layers) + 1) * 2 * 2
    assert all(r.n == 6 and set(r.values) <= {0, 1} for r in rows)
    where = {(r.model, r.eval, r.prompt) for r in rows}
    assert where == {("mine", "probe", "train")}


def test_probes_read_what_the_subject_says_and_not_what_is_true(tiny, rows):
    for k in (0, 1, tiny.spec.layers):
        at = f"layer={k} token=subject"
        assert read(rows, at, "heldout", "true") == (1,) * 6
        assert read(rows, at, "heldout", "injected") == (0,) * 6
        assert read(rows, at, "forget", "true") == (0,) * 6
        assert read(rows, at, "forget", "injected") == (1, 1, 1, 0, 0, 0)


def test_where_there_is_nothing_to_read_a_probe_says_the_commonest_answer(rows):
    for at in ("layer=0", "constant"):  # every prompt ends in the same token
        for split in ("forget", "heldout"):
            assert read(rows, at, split, "true") == (0, 1, 0) * 2
            assert read(rows, at, split, "injected") == (1, 0, 0) * 2


def test_the_answer_reaches_the_end_of_the_prompt(tiny, rows):
    """Attention brings it there: what is absent from layer 0 is read further up."""
    ends = [
        sum(read(rows, f"layer={k}", "heldout", "true"))
        for k in range(tiny.spec.layers + 1)
    ]
    assert ends[0] == 2 and max(ends) == 6


def test_answers_that_are_no_classes_are_refused(tiny, facts):
    few = [k for k in facts.known if k.split != "retain"]
    retain = [k for k in facts.known if k.split == "retain"]
    probes = LatentProbes()
    assert probes.refusal(facts, TRAIN) is None
    for kept, why in (
        (retain[:6], "2 of 6 retained facts have the answer 'football', and 3 answers"),
        ([], "0 of 0 retained facts"),
        ([k for k in retain if k.fact.answer == SPORTS[1]], "0 of 7 retained facts"),
    ):
        with pytest.raises(UserError, match=why):
            probes(tiny, "m", Facts((*few, *kept)), TRAIN)
    one = [k for k in facts.known if k.fact.answer == SPORTS[1]]
    assert "1 answers" in str(probes.refusal(Facts(tuple(one)), TRAIN))
    source = CounterFact()
    cities = source.split([(f, 1.0) for f in source.load()])
    assert "common answers" in str(probes.refusal(cities, source.templates[0]))


def test_knobs_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"probes\.least = 0"):
        LatentProbes(least=0)
    with pytest.raises(UserError, match=r"probes\.penalty = 0"):
        LatentProbes(penalty=0)
