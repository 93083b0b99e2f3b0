"""Tracing: cells of a sweep are patched runs, and shares of a known whole."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import made_pieces
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import GaussianNoise, OtherSubject
from mu_jax.localizers import tracing
from mu_jax.localizers.metrics import KL, LogitDiff, Probability
from mu_jax.localizers.patched_runs import Cell, base, positions, sweep
from mu_jax.localizers.patching import Inputs, measure, record, subject_noise
from mu_jax.localizers.roles import ROLES
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.model.tokenizer import from_files
from mu_jax.types import Site

pytestmark = pytest.mark.usefixtures("quick", "float64")
KINDS = ("attn", "mlp", "head", "resid")
PREFIX = 4


def layers(kind, start, stop, unit=None):
    return tuple(Site(layer, kind, unit) for layer in range(start, stop))


def changes_of(cell, prompts, *, prefix=0, behind=0):
    """The weights that a cell moves, one by one, of the tokens behind `behind`.

    Positions count from the end of the prefix.
    """
    where = positions(prompts, cell.where).copy()
    where[:, :behind] = False
    return {
        (
            site.kind,
            site.layer,
            row,
            position,
            *([site.unit] * (site.kind == "head")),
        ): 1
        for site in cell.sites
        for row, position in np.argwhere(where[:, prefix:])
    }


CELLS = [
    Cell(layers("attn", 0, 1)),
    Cell(layers("resid", 6, 7), "end"),
    Cell(layers("resid", 0, 1), "last"),
    Cell(layers("mlp", 2, 5), "last"),
    Cell((Site(3, "head", 2), Site(5, "attn"), Site(4, "head", 0)), 7),
    Cell(layers("head", 1, 5, unit=1), "between"),
    Cell((*layers("head", 2, 3), *layers("mlp", 6, 7)), "first"),
    Cell(layers("resid", 4, 5), 10),
    Cell((Site(2, "mlp"), Site(5, "head", 3), Site(4, "resid")), "middle"),
    Cell(layers("head", 6, 7, unit=0)),
    Cell(layers("attn", 3, 7), "end"),
    Cell(layers("mlp", 0, 7), 5),
    Cell(layers("mlp", 5, 6), 4),
]


@pytest.fixture(scope="module", params=[1, 2, 3])
def cells_of(request, of_generation, pair, plain):
    """A model, donors that differ at every position, and each cell's slow value."""
    model, inputs = of_generation(request.param), Inputs(pair[0])
    kinds = functools.partial(record, model.network, kinds=KINDS, prefix=0)
    rng = np.random.default_rng(0)
    donors = {
        kind: jnp.array(rng.standard_normal(a.shape))
        for kind, a in jax.eval_shape(kinds, model.params, inputs)[1].items()
    }

    def slow(behind):
        return [
            plain(model, inputs, donors, changes_of(cell, pair[0], behind=behind))
            for cell in CELLS
        ]

    return model, donors, slow


@pytest.mark.parametrize("prefix", [0, PREFIX])
def test_a_cell_is_the_plain_patched_run(cells_of, pair, prefix):
    model, donors, slow = cells_of
    behind = {kind: array[:, :, prefix:] for kind, array in donors.items()}
    made, _ = base(model, Inputs(pair[0]), behind, prefix)
    how = {"prefix": prefix, "batch": 4}
    got = sweep(model, made, CELLS, LogitDiff(), np.zeros((5, 0)), **how)
    assert len(np.unique(got.round(6))) > 50
    np.testing.assert_allclose(got, slow(prefix), rtol=0, atol=1e-10)


METHOD = CausalTracing(kinds=KINDS, rows=5)


def whole(kind):
    return layers(kind, 0, 7)


def test_patching_everything_is_the_clean_run(model, pair):
    heads = tuple(s for h in range(4) for s in layers("head", 0, 7, unit=h))
    everything = [
        Cell((*whole("attn"), *whole("mlp"), *whole("resid"), *heads)),
        Cell(whole("resid")),
        Cell((Site(6, "resid"),)),
        Cell((Site(6, "resid"),), "end"),
    ]
    patched, ends = METHOD.trace(model, *pair, everything)
    assert np.abs(ends[0] - ends[1]).min() > 1e-3
    np.testing.assert_allclose(patched, np.tile(ends[0], (4, 1)), rtol=0, atol=1e-12)
    shares = METHOD.shares(model, *pair, everything).mean(axis=1)
    np.testing.assert_allclose(shares, 1, rtol=0, atol=1e-12)


def test_patching_what_does_not_differ_is_the_corrupt_run(model, pair):
    nothing = [
        Cell(whole("resid"), "before"),
        Cell((*whole("attn"), *whole("mlp")), 2),
        Cell((Site(6, "resid"),), "last"),
        Cell(layers("resid", 6, 7), "between"),
        Cell((Site(0, "attn"),), "last"),
    ]
    patched, ends = METHOD.trace(model, *pair, nothing)
    np.testing.assert_allclose(
        patched[:4], np.tile(ends[1], (4, 1)), rtol=0, atol=1e-12
    )
    assert np.abs(patched[4] - ends[1]).max() > 1e-3


# Maps


def test_the_role_and_token_maps_are_single_cells(model, pair, traced):
    want = METHOD.shares(
        model,
        *pair,
        [
            Cell((Site(2, "mlp"),), "last"),
            Cell((Site(3, "attn"),), "end"),
            Cell((Site(6, "resid"),), "end"),
            Cell((Site(4, "mlp"),)),
        ],
    ).mean(axis=1)
    at = lambda kind, role: traced.axes[kind].index(role)
    got = [
        traced.tables["mlp"][2][at("mlp", "last")],
        traced.tables["attn"][3][at("attn", "end")],
        traced.tables["resid"][6][at("resid", "end")],
        traced.values[Site(4, "mlp")],
    ]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert traced.axes["mlp"] == [role for role in ROLES if role != "before"]


def test_the_token_maps_agree_with_single_cells(model, pair, traced):
    narrow = CausalTracing(kinds=KINDS, rows=1, batch=4)
    maps = narrow.token_maps(model, *pair)
    assert maps.keys() == {"attn", "mlp", "resid"}
    picked = [("attn", 0, 4), ("mlp", 3, 5), ("resid", 5, 10), ("mlp", 6, 8)]
    cells = [Cell((Site(layer, kind),), at) for kind, layer, at in picked]
    want = METHOD.shares(model, *pair, cells).mean(axis=1)
    for (kind, layer, at), share in zip(picked, want, strict=True):
        assert abs(maps[kind][layer, at] - share) < 1e-12
    assert all((table[:, :PREFIX] == 0).all() for table in maps.values())
    length = int(pair[0].last[0]) + 1
    assert np.shape(traced.tables["example mlp"]) == (7, length)
    assert len(traced.axes["example mlp"]) == length
    assert traced.tables["example resid"][6][-1] == pytest.approx(1, abs=1e-12)


def test_there_is_a_finite_score_and_error_for_every_site(traced):
    want = {Site(i, kind) for kind in ("attn", "mlp", "resid") for i in range(7)}
    want |= {Site(i, "head", h) for i in range(7) for h in range(4)}
    assert traced.values.keys() == want
    assert traced.notes["stderr"].keys() == set(map(str, want))
    assert np.isfinite(
        [*traced.values.values(), *traced.notes["stderr"].values()]
    ).all()
    heads = [traced.values[Site(3, "head", h)] for h in range(4)]
    assert traced.tables["head"][3] == heads


def test_a_window_moves_its_layers_together(model, pair):
    def cell(window, layer):
        method = CausalTracing(kinds=KINDS, window=window)
        return [s.layer for s in method._cell(Site(layer, "mlp"), model).sites]

    assert cell(1, 3) == [3]
    assert cell(3, 3) == [2, 3, 4] and cell(3, 0) == [0, 1] and cell(3, 6) == [5, 6]
    assert cell(4, 3) == [2, 3, 4, 5] and cell(9, 3) == list(range(7))
    wide = CausalTracing(kinds=KINDS, rows=5, window=7, by_role=False, example=-1)
    resid = wide(model, *pair).values[Site(3, "resid")]
    assert resid == pytest.approx(1, abs=1e-12)


# Noise


def test_the_noise_is_averaged_over_its_draws(model, pair, plain):
    clean = pair[0]
    how = GaussianNoise(draws=3, seed=5)
    cells = [
        Cell((Site(0, "attn"),)),
        Cell((Site(0, "mlp"),), "last"),
        Cell((Site(2, "head", 1),)),
        Cell((Site(4, "resid"),), "end"),
    ]
    method = CausalTracing(kinds=KINDS, rows=5, corruption=how)
    patched, ends = method.trace(model, clean, clean, cells)
    _, donors = record(
        model.network, model.params, Inputs(clean), kinds=KINDS, prefix=PREFIX
    )
    runs = [
        Inputs(clean, subject_noise(model, clean, how, PREFIX, draw))
        for draw in range(3)
    ]
    values = lambda moved: [
        plain(model, run, donors, moved, prefix=PREFIX) for run in runs
    ]
    single = values({})
    assert np.std(single, axis=0).min() > 1e-4
    np.testing.assert_allclose(ends[1], np.mean(single, axis=0), rtol=0, atol=1e-12)
    for cell, got in zip(cells, patched, strict=True):
        single = values(changes_of(cell, clean, prefix=PREFIX))
        np.testing.assert_allclose(got, np.mean(single, axis=0), rtol=0, atol=1e-10)


def test_noise_is_on_the_subject_and_its_seed_and_draw_decide_it(model, pair):
    def noise(draw=0, **how):
        return subject_noise(model, pair[0], GaussianNoise(**how), PREFIX, draw)

    one = noise()
    subject = pair[0].subject[:, PREFIX:]
    assert (one[~subject] == 0).all() and (one[subject] != 0).all()
    assert (one == noise()).all()
    assert (one[subject] != noise(draw=1)[subject]).all()
    assert (one[subject] != noise(seed=1)[subject]).all()


@pytest.mark.parametrize("per_row", [False, True])
def test_the_deviation_of_the_noise(model, pair, per_row):
    """3 sigma of all subject tokens; in paper mode sqrt(3 sigma) of the row's own."""
    clean = pair[0]
    how = GaussianNoise(per_row=per_row)
    table = np.asarray(model.params["embedder"].unwrap("vocabulary", "embedding"))
    table = table * np.sqrt(model.spec.embedding)
    own = [table[clean.tokens[row][clean.subject[row]]] for row in range(5)]
    draws = np.stack(
        [subject_noise(model, clean, how, PREFIX, draw) for draw in range(40)]
    )
    for row in range(5):
        got = draws[:, row, clean.subject[row, PREFIX:]].std()
        sigma = own[row].std() if per_row else np.concatenate(own).std()
        want = np.sqrt(3 * sigma) if per_row else 3 * sigma
        assert got == pytest.approx(want, rel=0.08)


# Metrics


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def judged(model, pair):
    """Ends of runs, and all their logits."""
    rng = np.random.default_rng(3)
    ends, other = rng.standard_normal((2, 5, model.spec.embedding))
    logits = np.asarray(model.network.logits(model.params, jnp.stack([ends, other])))
    how = lambda metric, at=ends: np.asarray(
        measure(model.network, model.params, at, pair[0], other, metric=metric)
    )
    return how, other, logits


def test_the_probability_is_that_of_a_softmax(judged, pair):
    how, _, logits = judged
    chance, answer = softmax(logits[0]), pair[0].answer
    want = [chance[row, answer[row]] for row in range(5)]
    np.testing.assert_allclose(how(Probability()), want, rtol=1e-12)
    pooled = [sum(chance[row, token] for token in answer) for row in range(5)]
    np.testing.assert_allclose(how(Probability(pooled=True)), pooled, rtol=1e-12)
    assert len(set(answer.tolist())) < 5


def test_the_divergence_is_zero_at_the_clean_run_and_negative_elsewhere(judged):
    how, clean, logits = judged
    np.testing.assert_allclose(how(KL(), clean), 0, rtol=0, atol=1e-14)
    p, q = softmax(logits[1]), softmax(logits[0])
    want = -(p * np.log(p / q)).sum(axis=1)
    assert (want < 0).all()
    np.testing.assert_allclose(how(KL()), want, rtol=1e-10)


def test_the_logit_difference_is_to_the_mean_of_the_others(judged, pair):
    how, _, logits = judged
    clean = pair[0]
    own, pooled = [], []
    for row in range(5):
        value = lambda token, row=row: logits[0, row, token]
        others = [t for t in clean.options[row] if t != clean.answer[row]]
        own.append(value(clean.answer[row]) - np.mean([value(t) for t in others]))
        right, wrong = [], []
        for options, answer in zip(clean.options, clean.answer, strict=True):
            right += [value(t) for t in options if t == answer]
            wrong += [value(t) for t in options if t != answer]
        pooled.append(np.mean(right) - np.mean(wrong))
    np.testing.assert_allclose(how(LogitDiff()), own, rtol=1e-12)
    np.testing.assert_allclose(how(LogitDiff(pooled=True)), pooled, rtol=1e-12)


# Taking up a sweep that was cut short


class Cut(Exception):
    pass


def test_a_sweep_cut_short_goes_on_where_it_was(model, pair, traced, once):
    told = []

    def cut(what, done, total):
        told.append((done, total))
        if 0 < done > total // 2:
            raise Cut

    with pytest.raises(Cut):
        METHOD(model, *pair, progress=cut, journal=once)
    kept, (done, total) = dict(once), told[-1]
    assert len(kept) == done < total
    told.clear()
    go_on = lambda what, done, total: told.append((done, total))
    assert METHOD(model, *pair, progress=go_on, journal=once) == traced
    assert told[0] == (done, total) and once.items() > kept.items()


def test_what_is_done_is_believed(model, pair, traced, once):
    METHOD(model, *pair, journal=once)
    once_more = dict(once)
    once_more["2.mlp@all"] = [v + 1 for v in once["2.mlp@all"]]
    again = METHOD(model, *pair, journal=once_more)
    changed = {s for s, v in traced.values.items() if again.values[s] != v}
    assert changed == {Site(2, "mlp")}


# Bad input


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell((Site(0, "mlp"),), "nowhere"), "'nowhere'; expected 'all' or one of bef"),
        (Cell((Site(0, "mlp"),), 11), "position 11; expected .* from 0 to 10"),
        (Cell((Site(0, "mlp"),), -1), "position -1"),
        (Cell((Site(0, "nose"),)), "0.nose; expected one of the kinds attn, head"),
        (Cell((Site(0, "query"),)), "0.query"),
        (Cell((Site(7, "mlp"),)), "7.mlp; .* layers 0 to 6"),
        (Cell((Site(-1, "mlp"),)), "-1.mlp"),
        (Cell((Site(0, "mlp"), Site(0, "head", 4))), "0.head.4; .* heads 0 to 3"),
        (Cell(()), "no sites; expected at least one"),
    ],
)
def test_a_cell_that_the_model_lacks_is_refused(model, pair, cell, message):
    with pytest.raises(UserError, match=message):
        METHOD.shares(model, *pair, [cell])


def test_settings_without_a_meaning_are_refused():
    for wrong, message in [
        ({"window": 0}, "window of 0 layers"),
        ({"mode": "plain"}, "mode 'plain'; expected clean or paper"),
        ({"kinds": ()}, "no kind of site"),
        ({"kinds": ("mlp", "nose")}, "'nose'"),
        ({"kinds": ("neuron",)}, "'neuron'"),
    ]:
        with pytest.raises(UserError, match=message):
            CausalTracing(**wrong)
    with pytest.raises(UserError, match="scale 0; expected a scale above 0"):
        GaussianNoise(scale=0)


def test_pairs_that_do_not_match_are_refused(model, pair):
    clean, corrupt = pair
    for other, message in [
        (corrupt.rows(slice(3)), "clean prompts .5, 11.* as many rows"),
        (corrupt.rows([1, 1, 2, 3, 4]), "row 0: 9 clean tokens, 10 corrupt"),
        (clean, "same logit difference; expected corrupt prompts that change"),
    ]:
        with pytest.raises(UserError, match=message):
            METHOD(model, clean, other)


# The paper's runs


@pytest.fixture
def drawn(monkeypatch):
    """Every noise that tracing draws, in order."""
    draws = []

    def draw(*args):
        draws.append(subject_noise(*args))
        return draws[-1]

    monkeypatch.setattr(tracing, "subject_noise", draw)
    return draws


def test_the_papers_runs_draw_anew_and_sum_heads(model, pair, plain, drawn):
    method = CausalTracing.paper(metric=LogitDiff(), rows=5)
    clean = pair[0]
    scores = method(model, *pair)
    sites = [s for s in scores.values if s.kind != "attn"]
    assert len(sites) == 35 == len(drawn) - 1
    assert len({draw.tobytes() for draw in drawn}) == 36
    for layer in range(7):
        heads = [scores.values[Site(layer, "head", h)] for h in range(4)]
        assert scores.values[Site(layer, "attn")] == pytest.approx(sum(heads))
    _, donors = record(
        model.network, model.params, Inputs(clean), kinds=KINDS, prefix=PREFIX
    )

    def value(draw, cell=None):
        moved = changes_of(cell, clean, prefix=PREFIX) if cell else {}
        inputs = Inputs(clean, drawn[draw])
        return plain(model, inputs, donors, moved, prefix=PREFIX).mean()

    _, ends = METHOD.trace(model, *pair, [Cell((Site(0, "mlp"),))] * 4)
    top, low = ends[0].mean(), value(35)
    for index in (0, 13, 34):
        want = (value(index, Cell((sites[index],))) - low) / (top - low)
        assert scores.values[sites[index]] == pytest.approx(want, abs=1e-9)


def test_the_papers_settings():
    paper = CausalTracing.paper()
    assert paper.corruption == GaussianNoise(scale=3.0, per_row=True)
    assert paper.metric == Probability(pooled=True) and paper.kinds == ("head", "mlp")
    assert CausalTracing().corruption == OtherSubject()


def test_control_tokens_are_called_by_their_names():
    tokenizer = from_files({"tokenizer.model": made_pieces.proto()})
    ids = np.array([tokenizer.encode("<start_of_turn>a p").ids])
    model = SimpleNamespace(tokenizer=tokenizer)
    prompts = SimpleNamespace(tokens=ids, valid=np.ones(ids.shape, bool))
    wanted = ["<bos>", "<start_of_turn>", "a", " p"]
    assert tracing._spelled(model, prompts) == wanted
