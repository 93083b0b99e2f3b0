"""Attribution patching: what every site would do if patched, from one gradient.

Nanda's linearisation, as in method §4.2: in a clean run, sites move towards the corrupt
run, and the score of a site is the derivative of the normalised logit difference

    M = (LD - LD_clean) / (LD_clean - LD_corrupt)      0 clean, -1 corrupt

summed over rows and positions. Both LD are means over the batch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mu_jax.errors import UserError
from mu_jax.facts.tokens import batched, shared_prefix
from mu_jax.localizers.patching import donors, logit_diff, patched, zero_weights
from mu_jax.model.model import Model
from mu_jax.types import Progress, Prompts, Scores, Site, silent

ROLES = ("before", "first", "middle", "last", "between", "end")
"""Where a token stands: before the subject, its first, inner and last token, between
the subject and the prompt's end, and the end, where the answer is predicted. A subject
of one token is `last`."""


@dataclasses.dataclass(frozen=True)
class AttributionPatching:
    """Scores of attention outputs, MLP outputs and heads, from one backward pass.

    Attributes:
      kinds: the kinds of sites scored.
      rows: at most this many prompts, the first ones.
      batch: rows differentiated together; the sum over batches is exact.
    """

    kinds: tuple[str, ...] = ("attn", "mlp", "head")
    rows: int = 64
    batch: int = 16

    def __call__(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> Scores:
        """Signed sums over rows and positions, ranked by magnitude.

        The tables hold, per kind, [layer, role] for pictures; the notes the mean over
        rows of the absolute row score, which signs cannot cancel in.
        """
        clean, corrupt = (p.rows(slice(self.rows)) for p in (clean, corrupt))
        maps = self.maps(model, clean, corrupt, progress)
        roles = _roles(clean)
        values, absolute, tables, axes = {}, {}, {}, {}
        for kind, array in maps.items():
            per_row = array.sum(axis=2)  # [layer, batch, (head)]
            total, mean = per_row.sum(axis=1), np.abs(per_row).mean(axis=1)
            for index in np.ndindex(total.shape):
                site = Site(index[0], kind, *index[1:])
                values[site] = float(total[index])
                absolute[str(site)] = float(mean[index])
            flat = array if kind != "head" else array.sum(axis=3)
            name = "attn" if kind == "head" else kind
            tables[name] = np.einsum("lbs,bsr->lr", flat, roles).tolist()
            axes[name] = ROLES
            if kind == "head":
                tables["head"] = total.tolist()
                axes["head"] = [f"head {i}" for i in range(total.shape[1])]
        return Scores(
            "attribution",
            values,
            tables,
            axes,
            {"rows": len(clean.tokens), "mean_absolute_row_score": absolute},
        )

    def maps(
        self,
        model: Model,
        clean: Prompts,
        corrupt: Prompts,
        progress: Progress = silent,
    ) -> dict[str, np.ndarray]:
        """{kind: [layer, batch, seq(, head)]} the score at every position."""
        if clean.tokens.shape != corrupt.tokens.shape:
            raise UserError(
                f"clean prompts {clean.tokens.shape}, corrupt {corrupt.tokens.shape}",
                "as many rows of as many tokens",
                "make both with facts.corrupt",
            )
        prefix = shared_prefix(clean, corrupt)
        pieces, done, total = [], 0, len(clean.tokens)
        progress("attribution patching", 0, total)
        both = zip(
            batched(clean, self.batch), batched(corrupt, self.batch), strict=True
        )
        sums = np.zeros(2)
        for (a, n), (b, _) in both:
            gradient, ends = _gradient(
                model.network, model.params, a, b, self.kinds, prefix
            )
            pieces.append({k: np.asarray(g)[:, :n] for k, g in gradient.items()})
            sums += np.asarray(ends)[:, :n].sum(axis=1)
            done += n
            progress("attribution patching", done, total)
        gap = (sums[0] - sums[1]) / total  # LD_clean - LD_corrupt, means over all rows
        if abs(gap) < 1e-6:
            raise UserError(
                "the clean and the corrupt runs have the same logit difference",
                "corrupt prompts that change the answer",
                "choose another corruption",
            )
        out = {}
        for kind in self.kinds:
            rest = np.concatenate([p[kind] for p in pieces], axis=1) / (gap * total)
            pad = [(0, 0)] * rest.ndim
            pad[2] = (prefix, 0)  # nothing differs inside the prefix
            out[kind] = np.pad(rest, pad)
        return out


@functools.partial(jax.jit, static_argnames=("network", "kinds", "prefix"))
def _gradient(network, params, clean, corrupt, kinds: tuple[str, ...], prefix: int):
    """d sum(LD) / d weight at 0, and [2, batch] the LD of clean and corrupt rows."""
    logits, donor = donors(network, params, corrupt, kinds, prefix)

    def total(weights):
        rows = patched(network, params, clean, weights, donor, logit_diff, prefix)
        return rows.sum(), rows

    gradient, rows = jax.grad(total, has_aux=True)(zero_weights(donor))
    ends: Array = jnp.stack([rows, logit_diff(logits, clean)])
    return gradient, ends


def _roles(prompts: Prompts) -> np.ndarray:
    """[batch, seq, role] one-hot: which of ROLES each real token plays."""
    seq = prompts.tokens.shape[1]
    position = np.arange(seq)
    first = prompts.subject.argmax(axis=1)[:, None]
    last = seq - 1 - prompts.subject[:, ::-1].argmax(axis=1)[:, None]
    end = np.asarray(prompts.last)[:, None]
    conditions = [
        position == end,
        position < first,
        position == last,
        position == first,
        position < last,
        position < end,
    ]
    order = ["end", "before", "last", "first", "middle", "between"]
    names = np.select(conditions, [np.int32(ROLES.index(r)) for r in order], -1)
    return (names[..., None] == np.arange(len(ROLES))).astype(np.float64)
