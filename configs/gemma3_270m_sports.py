"""Athletes' sports in the real Gemma 3 270M: the main job, on a laptop.

    mu run configs/gemma3_270m_sports.py        (or: bash scripts/demo.sh)

Forgets the sport of the first 16 athletes that the model knows, by teaching it another
one, in four places of equal size: the MLPs that the probes say look the sport up, those
that attribution patching ranks highest, the last ones, and random ones.

MEASURED
"""

from mu_jax.config import Config


def get_config() -> Config:
    return Config(name="gemma3_270m_sports")
