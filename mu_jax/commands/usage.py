"""What `mu --help` and `mu STAGE --help` say."""

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PAGE = """\
mu: find the MLPs that look a fact up, edit only those, see whether the fact stays gone.

usage: mu STAGE CONFIG|RUN [--runs DIR] [--force] [--distributed]
                           [--dotted.override VALUE ...]

stages (mu STAGE --help: one of them alone)
{stages}

what do they say?
  mu ask RUN|MODEL [PROMPT ...]   the likeliest next words, the unedited model's beside
                                  each edited one's (mu ask --help)

edits that travel
  mu export RUN --to hf|gemma|delta DIR [--edit NAME] [--dtype DTYPE] [--rounded]
                                        [--force]
  mu delta show|diff|stack|apply|revert ...   (mu delta: how each is called)

several runs
  mu compare RUN RUN ... [--json] [--markdown FILE]
                           one table; runs that differ in seeds alone are pooled

standard benchmarks (lm-eval)
  mu harness RUN --tasks A,B [--edit NAME ...] [--limit N] ...   (mu harness --help)

arguments
  CONFIG    a Python file with get_config(), such as configs/tiny.py
  RUN       the directory of an earlier run; its config is used

options
{options}

examples
  mu run configs/gemma3_270m_sports.py
  mu facts configs/gemma3_270m_sports.py --facts.path athletes.csv
  mu edit runs/gemma3_270m_sports --edit.steps 20 --edit.loss.weight 0.5
  mu attack runs/gemma3_270m_sports --attack quantize,relearn --edit flu,late
  mu sweep configs/gemma3_270m_sports.py --over edit.seed 0 1 2
  mu sweep configs/gemma3_270m_sports.py --facts.tune 32 \\
      --over edit.learning_rate 3e-5 1e-4 3e-4 --choose score
  mu run configs/gemma3_270m_sports.py --mesh.fsdp 4 --dtype bfloat16
  mu plan configs/gemma2_9b_sports.py --topology v5e:4x4

SIGTERM saves and stops (status 143), and so does a closed pipe, as in `mu ... | head`
(141); the same command goes on from there. Paths are of this machine: URLs are refused.
"""


class Option(NamedTuple):
    """One option: how it is written, what it does, and of which stages, if not all."""

    spelling: str
    meaning: str
    stages: tuple[str, ...] = ()


_OF_RUNS = (
    Option("--runs DIR", "where runs are kept (default: runs)"),
    Option("--force", "redo what is up to date"),
    Option(
        "--edit NAME,...",
        "which edited models to make, measure or attack, or selections to mask",
        ("edit", "evaluate", "attack", "mask", "run", "sweep"),
    ),
    Option("--attack NAME,...", "which of the config's attacks to try", ("attack",)),
    Option("--over SETTING VALUE ...", "the setting, and its values", ("sweep",)),
    Option(
        "--choose METRIC",
        "which value is best, on facts set aside for it (--facts.tune 32); one of"
        " score, injection, forgotten, injected, kept (see mu_jax/report/score.py)",
        ("sweep",),
    ),
    Option(
        "--as bfloat16",
        "the edited models as they are shipped in that dtype, with every weight rounded"
        ' to it; rows of their own ("flu as bfloat16")',
        ("evaluate",),
    ),
    Option(
        "--distributed",
        "this is one of several processes that run this same command, on a TPU pod, GKE"
        " or Slurm, and share the run directory; see scripts/tpu_pod.sh",
    ),
    Option(
        "--coordinator HOST:PORT --processes N --process I",
        "likewise, started by hand: process 0 listens there (or"
        " JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the"
        " environment, and --distributed)",
    ),
)
_OF_PLANS = (
    Option("--topology KIND:SHAPE", "TPU chips, such as v5e:4x4 or v6e:1", ("plan",)),
    Option(
        "--search",
        "the smallest topology that fits, of all kinds or of --topology KIND",
        ("plan",),
    ),
    Option("--only STAGE", 'plan one stage alone, such as "edit flu"', ("plan",)),
    Option("--json", "the plan as JSON", ("plan",)),
)
_OF_ALL = (
    Option(
        "--dotted.override VALUE",
        "any setting of the config, such as --edit.steps 20; CONFIG --help lists them",
    ),
    Option(
        "--trust FILE",
        "a Python file whose classes a run may name: methods of one's own, when the run"
        " is taken up without its config file",
    ),
    Option("--help", "this text; behind a CONFIG or RUN, every setting"),
)


def page(stages: Mapping[str, str]) -> str:
    """The whole command.

    Args:
      stages: what each does, of which the first line is shown.
    """
    width = max(map(len, stages)) + 1
    lines = (
        f"  {name:{width}} {what.splitlines()[0]}" for name, what in stages.items()
    )
    return _PAGE.format(
        stages="\n".join(lines),
        options=_options([*_OF_RUNS, *_OF_PLANS, *_OF_ALL], marked=True),
    )


def of_stage(stage: str, what: str) -> str:
    """One stage alone: what it does, and which options it takes."""
    first, _, rest = inspect.cleandoc(what).partition("\n")
    rest = f"\n{rest.strip()}\n" if rest.strip() else ""
    own = [o for o in _OF_RUNS if stage in o.stages or not o.stages]
    own = [*(_OF_PLANS if stage == "plan" else own), *_OF_ALL]
    return (
        f"mu {stage}: {first}\n\n"
        f"usage: mu {stage} CONFIG|RUN [option ...]\n{rest}\n"
        f"options\n{_options(own)}\n\n"
        f"mu {stage} CONFIG --help: every setting; mu --help: all stages\n"
    )


def _options(options: Sequence[Option], marked: bool = False) -> str:
    """A paragraph each; `marked` with their stages, where they are not of all."""
    out = []
    for option in options:
        of = f" (of {', '.join(option.stages)})" * (marked and bool(option.stages))
        out.append(f"  {option.spelling}{of}")
        out += textwrap.wrap(
            option.meaning, 82, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(out)
