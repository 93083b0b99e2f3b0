"""Athletes' sports in Llama 3 8B: the paper's edit of 16 athletes, on a pod.

    mu plan configs/llama3_8b_sports.py --topology v5e:4x4
    mu run configs/llama3_8b_sports.py --facts.path sports.csv

Its fact-lookup layers are those that the paper names; see `paper.py` for all else.

Planned, not measured: the fact-lookup edit peaks at 7.3 GiB a chip on v5e:2x2, the
nonlocalized one at 7.9 on v5e:4x4; a v5e chip has 15.75.
"""

import paper

from mu_jax.runs.config import Config, Tuning
from mu_jax.selectors import Layers


def get_config() -> Config:
    return paper.sports(
        "llama3_8b_sports",
        "meta-llama/Meta-Llama-3-8B",
        flu=Layers(mlp=range(1, 5)),
        mlps=Tuning(5e-5, 5),
        components=Tuning(1e-4, 2),
        everything=Tuning(2e-5, 2),
    )
