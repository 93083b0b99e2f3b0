"""Killed anywhere, then started with these or other settings: as if never disturbed.

The kill is made inside the process, which is quicker than a process for each: from a
moment on, nothing that the command does to a file happens. (`test_preemption` kills
real processes, also inside of orbax.)
"""

import contextlib
import re
import shutil
import sys

import pytest
import small_run

from mu_jax.__main__ import main

OTHER = {"edit": ["--edit.steps", "4"], "evaluate": ["--recall.limit", "4"]}
"""For each stage, a setting that the finished run was not made with."""

POINTS = {
    "edit": {
        "its stamp still there": ("os.remove", r"stamps/edits/top$"),
        "the old tensors still there": ("os.rmdir", r"edits/top/params"),
        "the new tensors there, their names not": ("os.rename", "selection.json"),
        "the history not": ("os.rename", "history.jsonl"),
        "all but config and stamp": ("os.rename", "config.json"),
        "all but the stamp": ("os.rename", r"stamps/edits/\.top"),
        "stamped, its state still there": ("shutil.rmtree", "edits/top/state"),
    },
    "evaluate": {
        "nothing measured": ("open", r"evals/\.unedited\.partial"),
        "its stamp still there": ("os.remove", r"stamps/evals/top$"),
        "the old rows still there": ("os.rename", r"evals/\.top\.jsonl"),
        "all but config and stamp": ("os.remove", r"evals/top\.partial"),
        "all but the stamp": ("os.rename", r"stamps/evals/\.top"),
    },
}
_KILLS: list = []


class Killed(BaseException):
    """What the process does from now on reaches no file."""


def _watch(event, args):
    if _KILLS and event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir",
                            "tempfile.mkstemp", "shutil.rmtree"):  # fmt: skip
        _KILLS[0](event, args)


sys.addaudithook(_watch)


@contextlib.contextmanager
def killed(run, event: str, pattern: str):
    """Inside, once a file of the run is about to be touched so, none is any more."""
    dead = []

    def kill(what, args):
        path = str(args[0])
        writes = what != "open" or (args[1] and set(args[1]) & set("wa+x"))
        if not writes or not path.startswith(str(run)):
            return
        if dead or (what == event and re.search(pattern, path)):
            dead.append(path)
            raise Killed

    _KILLS.append(kill)
    try:
        yield dead
    finally:
        _KILLS.remove(kill)


@pytest.fixture(scope="module", autouse=True)
def _cache(small, quick):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MU_JAX_CACHE", str(small[0].parent / "cache"))
        yield


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """{stage: [a run that was finished, and made anew with no or other settings]}"""
    out = {}
    for stage, other in OTHER.items():
        folder = tmp_path_factory.mktemp(stage)
        out[stage] = []
        for name, settings in (("same", []), ("other", other)):
            run = shutil.copytree(small[1], folder / name)
            force = [] if settings else ["--force"]
            assert main([stage, str(run), *settings, *force]) == 0
            out[stage].append(run)
    return out


def found(run) -> dict:
    """What a run holds, but for what the clock said, and locks that nobody holds."""
    stamps = [f for f in (run / "stamps").rglob("*") if f.is_file()]
    stamps = sorted(f for f in stamps if f.suffix != ".lock")
    rows = sorted((run / "evals").iterdir())
    return {
        "weights": small_run.weights(run),
        "history": small_run.history(run),
        "edit": small_run.names(run / "edits/top"),
        **{str(f.relative_to(run)): f.read_bytes() for f in (*stamps, *rows)},
    }


@pytest.mark.parametrize(
    ("stage", "point"), [(s, p) for s, points in POINTS.items() for p in points]
)
def test_a_stage_killed_under_other_settings_goes_on_under_either(
    small, undisturbed, tmp_path, stage, point
):
    run = shutil.copytree(small[1], tmp_path / "run")
    with killed(run, *POINTS[stage][point]) as dead, contextlib.suppress(Killed):
        main([stage, str(run), *OTHER[stage]])
    assert dead, "the point was not reached"
    # With what is in its place, a run of the first settings must not pass for whole.
    for settings, expected in zip(([], OTHER[stage]), undisturbed[stage], strict=True):
        again = shutil.copytree(run, tmp_path / "_".join(["again", *settings[1:]]))
        assert main([stage, str(again), *settings]) == 0
        assert found(again) == found(expected)
