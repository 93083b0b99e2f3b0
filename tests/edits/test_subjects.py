"""Rows laid out by their subjects compute what they compute anywhere else."""

import jax
import numpy as np
import pytest
from rounding import double

from mu_jax.edits.subjects import align, look
from mu_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick")


def test_every_subject_ends_in_one_column_behind_its_own_words(told):
    asked, _, text = told
    laid, start = align(asked, text, 2, 5)
    for fact in range(len(asked.tokens)):
        words = asked.tokens[fact, asked.valid[fact]]
        for row in range(3):
            tokens = laid.tokens[fact, row, laid.valid[fact, row]]
            context = tokens[1 : len(tokens) - len(words) + 1]
            assert (tokens[0], len(context)) == (words[0], 5 * (row > 0))
            assert (tokens[1 + len(context) :] == words[1:]).all()
            if row:
                assert (context == text[(row - 1) * 20, 1:6]).all()
            at = laid.subject[fact, row]
            assert np.flatnonzero(at)[-1] == start
            same = asked.tokens[fact, asked.subject[fact]]
            assert (laid.tokens[fact, row, at] == same).all()


def test_a_site_reads_as_in_the_prompt_itself(float64, tiny, told):
    """And so does the mean over contexts, of which the first is none."""
    tiny = double(tiny)
    asked, _, text = told
    kinds = ("neuron", "down", "mlp", "resid")
    reads = tiny.run(asked, read=kinds).reads
    ends = [np.flatnonzero(row)[-1] for row in asked.subject]
    laid = align(asked, text, 0, 1)
    for fact, end in enumerate(ends):
        seen = look(
            tiny.network, tiny.params, laid.place(tiny.network, fact), laid.start, kinds
        )
        for kind in kinds:
            want = np.asarray(reads[kind])[:, fact, end]
            np.testing.assert_allclose(seen[kind], want, rtol=0, atol=1e-12)


def test_memory_of_each_row_changes_no_logit(float64, tiny, told):
    """A prefix that differs from row to row, padding on the left included."""
    tiny = double(tiny)
    laid, start = align(told[0], told[2], 2, 5)
    rows = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), laid)
    whole, _ = tiny.network.stream(tiny.params, rows.tokens, rows.valid)
    memory = tiny.network.remember(
        tiny.params, rows.tokens[:, :start], rows.valid[:, :start]
    )
    behind, _ = tiny.network.stream(
        tiny.params, rows.tokens, rows.valid, prefix=start, memory=memory
    )
    real = rows.valid[:, start:]
    np.testing.assert_allclose(
        np.asarray(behind)[real], np.asarray(whole)[:, start:][real], rtol=0, atol=1e-12
    )


def test_prompts_without_a_subject_or_too_little_text_are_refused(told):
    asked, _, text = told
    nowhere = asked._replace(subject=np.zeros_like(asked.subject))
    with pytest.raises(UserError, match="marks no subject"):
        align(nowhere, text, 2, 5)
    with pytest.raises(UserError, match="2 contexts of 16 tokens"):
        align(asked, text, 2, 16)
    with pytest.raises(UserError, match="41 contexts"):
        align(asked, text, 41, 5)
