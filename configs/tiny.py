"""The whole pipeline on a tiny random model, in seconds: a dry run, not a result.

    mu run configs/tiny.py

Two selections only: nearly all of the time is spent compiling their edits. A random
model looks nothing up, so that one of them is of named layers. It took
about a minute the first time and 9 s the second on two cores; no weights are needed.
"""

from mu_jax.edits.gradient import GradientEdit
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.recall import Recall
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.probes import Probes
from mu_jax.runs.config import Config
from mu_jax.selectors import Layers, Top


def get_config() -> Config:
    return Config(
        name="tiny",
        model="tiny",
        known=KnownFilter(threshold=0.0),  # a random model knows nothing: keep all
        localizers={
            "probes": Probes(threshold=0.0, max_subjects=120, bootstraps=20),
            "attribution": AttributionPatching(rows=16),
        },
        selections={"early": Layers(mlp=(0, 1)), "attribution": Top(budget="early")},
        edit=GradientEdit(steps=5, learning_rate=1e-2),
        recall=Recall(limit=16),
    )
