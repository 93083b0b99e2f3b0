"""The stage `mask`."""

import contextlib

from mu_jax.run import Run
from mu_jax.stages.evaluate import telling
from mu_jax.stages.material import training_prompts


def mask(run: Run) -> None:
    """Find out which weights of a selection forgetting needs gone."""
    run.need("facts", "facts")
    found = run.dir.read_facts()
    formats = telling(run) or list(run.config.facts.templates[:1])
    chosen = run.chosen("--edit", run.config.selections)
    for artefact in run.todo([f"masks/{name}" for name in chosen]):
        name = artefact.partition("/")[2]
        run.need(f"selections/{name}", "select")
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
