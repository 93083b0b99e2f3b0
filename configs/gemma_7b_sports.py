"""Athletes' sports in Gemma 7B: the paper's edit of 16 athletes, on a pod.

    mu plan configs/gemma_7b_sports.py --topology v5e:4x4
    mu run configs/gemma_7b_sports.py --facts.path sports.csv

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 10.4 GiB a chip on v5e:2x2, the
nonlocalized one at 8.9 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.sports(
        "gemma_7b_sports",
        "google/gemma-7b",
        flu=Layers(mlp=range(2, 8)),
        mlps=Tuning(1e-5, 5),
        components=Tuning(1e-5, 0.1),
        everything=Tuning(2e-6, 0.2),
    )
