"""The stage `mask`."""

import contextlib
from collections.abc import Sequence

from mu_jax.runs.run import Run
from mu_jax.stages.evaluate import telling
from mu_jax.stages.material import training_prompts
from mu_jax.types import Row


def mask(run: Run) -> None:
    """Find out which weights of a selection forgetting needs gone."""
    run.need("facts")
    found = run.dir.read_facts()
    formats = telling(run) or list(run.config.facts.templates[:1])
    chosen = run.chosen("--edit", run.config.selections)
    for artefact in run.todo([f"masks/{name}" for name in chosen]):
        name = artefact.partition("/")[2]
        run.need(f"selections/{name}")
        forget, keep = training_prompts(run, found.forget, found.retain)
        text, _ = run.text
        with contextlib.closing(run.snapshots(artefact)) as snapshots:
            rows = run.config.mask(
                run.model,
                run.dir.read_selection(name),
                found,
                formats,
                forget,
                keep,
                text,
                run.console.progress,
                snapshots,
            )
        run.dir.write_rows(artefact, rows)
        run.console.say(f"  {name}: {_summary(rows, formats[0].name)}")


def _summary(rows: Sequence[Row], prompt: str) -> str:
    """What is left when the largest share of weights is gone, in one line."""
    found = [r for r in rows if (r.prompt, r.metric) == (prompt, "choice_p_true")]
    of = {(r.at.partition("=")[0], r.split): r for r in found}  # the last is largest
    said = (
        f"{of[kind, 'forget'].mean:.2f} of forgotten and {of[kind, 'heldout'].mean:.2f}"
        f" of held-out facts {how}"
        for kind, how in (
            ("size", "without them"),
            ("random", "without as many others"),
        )
    )
    count = int(of["size", "forget"].at.partition("=")[2])
    return f"p(true) without {count:,} weights: {'; '.join(said)}"
