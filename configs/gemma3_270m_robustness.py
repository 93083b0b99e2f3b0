"""Does the fact stay gone? Baselines and attacks on the real Gemma 3 270M.

    mu run configs/gemma3_270m_robustness.py
    mu attack runs/gemma3_270m_robustness --edit flu,late,random
    mu mask runs/gemma3_270m_robustness --edit flu,late
    mu report runs/gemma3_270m_robustness

The three edits of `gemma3_270m_sports.py`, and beside them other methods on the same
facts: NPO, RMU, ROME, MEMIT and LoRA, all on the fact-lookup MLPs. None of them was
tuned.
"""

from mu_jax.config import Baseline, Config
from mu_jax.edits.gradient import GradientEdit
from mu_jax.edits.lora import LoRA
from mu_jax.edits.losses import NPO
from mu_jax.edits.memit import MEMIT
from mu_jax.edits.rmu import RMU
from mu_jax.edits.rome import ROME
from mu_jax.localizers.probes import Probes
from mu_jax.selectors import FactLookup, LateMLPs, RandomMLPs


def get_config() -> Config:
    return Config(
        name="gemma3_270m_robustness",
        localizers={"probes": Probes()},
        selections={
            "flu": FactLookup(),
            "late": LateMLPs(budget="flu"),
            "random": RandomMLPs(budget="flu"),
        },
        baselines={
            "npo": Baseline("flu", GradientEdit(loss=NPO())),
            "rmu": Baseline("flu", RMU()),
            "rome": Baseline("flu", ROME()),
            "memit": Baseline("flu", MEMIT()),
            "lora": Baseline("flu", LoRA(learning_rate=1e-3)),
        },
    )
