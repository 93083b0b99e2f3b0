"""How settings were chosen: what was tried for each edit, on facts of no report."""

from collections.abc import Sequence

from mu_jax.report.grid import Grid
from mu_jax.runs.swept import Choice


def settings(edited: Sequence[str], chosen: Sequence[Choice]) -> Grid | None:
    """A line an edit and setting; None where nothing was chosen."""
    if not chosen:
        return None
    rows = []
    for model in edited:
        own = [choice for choice in chosen if choice.model == model]
        for choice in own:
            tried = ", ".join(f"{v}: {s:.2f}" for v, s in choice.tried.items())
            how = (choice.setting, str(choice.value), choice.metric)
            rows.append((model, *how, tried, str(len(choice.facts))))
        if not own:
            rows.append((model, "-", "-", "-", "none: as in the config", "-"))
    return Grid(
        "How settings were chosen",
        "By a sweep over the values tried, on facts set aside for it, half of them"
        " forgotten and half held out: none is in any other table. Larger is better:"
        " score is the harmonic mean of forgotten (1 - the probability of the true"
        " answer over the options, forgotten facts) and kept (that probability for"
        " held-out facts, in parts of the unedited model's); injection has the share of"
        " injected answers in place of forgotten.",
        ("model", "setting", "chosen", "by", "tried", "facts"),
        tuple(rows),
        heads=2,
    )
