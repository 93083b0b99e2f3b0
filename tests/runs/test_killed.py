"""Killed anywhere, then started with these or other settings: as if never disturbed.

The kill is made inside the process, which is quicker than a process for each: from a
moment on, nothing that the command does to a file happens. (`test_preemption` kills
real processes, also inside of orbax.)
"""

import contextlib
import re
import shutil

import pytest
import small_run

from mu_jax.__main__ import main

SETTINGS = {
    "edit": (["--edit.steps", "6"], ["--edit.steps", "4"]),
    "evaluate": (["--recall.limit", "24"], ["--recall.limit", "4"]),
}
"""For each stage, the setting that the finished run was made with, and another."""

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
TOUCHING = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir",
            "tempfile.mkstemp", "shutil.rmtree")  # fmt: skip


class Killed(BaseException):
    """What the process does from now on reaches no file."""


@contextlib.contextmanager
def killed(audit, run, event: str, pattern: str):
    """Inside, once a file of the run is about to be touched so, none is any more."""
    dead = []

    def kill(what, args):
        if what not in TOUCHING or not (path := str(args[0])).startswith(str(run)):
            return
        if what == "open" and not set(args[1] or "") & set("wa+x"):
            return
        if dead or (what == event and re.search(pattern, path)):
            dead.append(path)
            raise Killed

    with audit(kill):
        yield dead


@pytest.fixture(scope="module", autouse=True)
def _cache(small, quick):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MU_JAX_CACHE", str(small[0].parent / "cache"))
        yield


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    """{stage: [a run that was finished, and one made anew with the other setting]}"""
    out = {}
    for stage, (_, other) in SETTINGS.items():
        run = shutil.copytree(small[1], tmp_path_factory.mktemp(stage) / "other")
        assert main([stage, str(run), *other]) == 0
        out[stage] = [small[1], run]
    return out


def found(run) -> dict:
    """What a run holds, but for what the clock said, and hidden files of the dead."""
    files = [*(run / "stamps").rglob("*"), *(run / "evals").iterdir()]
    shown = sorted(f for f in files if f.is_file() and not f.name.startswith("."))
    # Of stamps the settings alone: a history holds seconds, and so does its digest.
    held = lambda file: file.read_bytes().split(b"\n", "stamps" in file.parts)[0]
    return {
        "weights": small_run.weights(run),
        "history": small_run.history(run),
        "edit": small_run.names(run / "edits/top"),
        **{str(f.relative_to(run)): held(f) for f in shown},
    }


@pytest.mark.parametrize(
    ("stage", "point"), [(s, p) for s, points in POINTS.items() for p in points]
)
def test_a_stage_killed_under_other_settings_goes_on_under_either(
    small, undisturbed, tmp_path, audit, stage, point
):
    run = shutil.copytree(small[1], tmp_path / "run")
    with contextlib.suppress(Killed), killed(audit, run, *POINTS[stage][point]) as dead:
        main([stage, str(run), *SETTINGS[stage][1]])
    assert dead, "the point was not reached"
    # With what is in its place, a run of the first settings must not pass for whole.
    for setting, expected in zip(SETTINGS[stage], undisturbed[stage], strict=True):
        again = shutil.copytree(run, tmp_path / setting[1])
        assert main([stage, str(again), *setting]) == 0
        assert found(again) == found(expected)
