"""Athletes' sports in Gemma 2 9B: the paper's edit of 16 athletes, on a pod.

    mu plan configs/gemma2_9b_sports.py --topology v5e:4x4
    mu run configs/gemma2_9b_sports.py --facts.path sports.csv

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 9.0 GiB a chip on v5e:2x2, the
nonlocalized one at 9.6 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.sports(
        "gemma2_9b_sports",
        "google/gemma-2-9b",
        flu=Layers(mlp=range(2, 7)),
        mlps=Tuning(1e-5, 1),
        components=Tuning(5e-5, 5),
        everything=Tuning(2e-5, 5),
    )
