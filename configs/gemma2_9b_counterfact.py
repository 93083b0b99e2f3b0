"""CounterFact in Gemma 2 9B: the paper's edit of 16 facts, on a pod.

    mu plan configs/gemma2_9b_counterfact.py --topology v5e:4x4
    mu run configs/gemma2_9b_counterfact.py

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 8.9 GiB a chip on v5e:2x2, the
nonlocalized one at 9.5 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.counterfact(
        "gemma2_9b_counterfact",
        "google/gemma-2-9b",
        flu=Layers(mlp=(3, 4, 7, 8, 9)),
        mlps=Tuning(5e-5, 2),
        components=Tuning(5e-5, 2),
        everything=Tuning(5e-6, 1),
    )
