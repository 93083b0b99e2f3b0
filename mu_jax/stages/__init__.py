"""The pipeline: each stage reads files, calls the library, writes files.

    facts     ask the model for every fact; keep and split those it knows
    localize  score the sites of the network
    select    turn scores into selections of equal size
    edit      edit each selection, and make the baselines
    evaluate  measure the unedited and every edited model
    report    tables and plots in one page
    run       all of the above, as far as it is not up to date

and, when asked for,

    attack    try to bring the forgotten facts back
    mask      find out which weights of a selection forgetting needs gone

Here, and nowhere else, config, files and library meet. Which of a stage's artefacts are
up to date is for `Run` to say; what several stages make of the files, `material`.
"""

from collections.abc import Callable

from mu_jax import inputs
from mu_jax.runs.run import Run
from mu_jax.stages.attack import attack
from mu_jax.stages.edit import edit
from mu_jax.stages.evaluate import evaluate
from mu_jax.stages.facts import facts
from mu_jax.stages.localize import localize
from mu_jax.stages.mask import mask
from mu_jax.stages.report import report
from mu_jax.stages.select import select

Stage = Callable[[Run], None]

PIPELINE: dict[str, Stage] = {
    "facts": facts,
    "localize": localize,
    "select": select,
    "edit": edit,
    "evaluate": evaluate,
    "report": report,
}
"""What `run` does, in order."""

STAGES: dict[str, Stage] = {**PIPELINE, "attack": attack, "mask": mask}


def start(run: Run, stage: str) -> None:
    """Runs one stage, or the whole pipeline for `run`."""
    inputs.ends(run.config.facts.path)
    inputs.ends(run.config.text.path)
    names = list(PIPELINE) if stage == "run" else [stage]
    for number, name in enumerate(names, 1):
        doc = STAGES[name].__doc__ or ""
        run.console.stage(number, len(names), name, doc.splitlines()[0])
        STAGES[name](run)
    if stage != "report":
        run.settle()
    run.console.finish()
