"""Killed anywhere and started again, a run ends as one that was never disturbed."""

import os
import signal

import pytest
import small_run

from mu_jax.devices.preemption import STATUS, Preempted, Preemption

SIGNAL = """
import os, re, signal, sys
def watch(event, args, pattern=re.compile({pattern!r})):
    if event == {event!r} and any(pattern.search(str(a)) for a in args[:2]):
        os.kill(os.getpid(), signal.{name})
sys.addaudithook(watch)
"""
"""Sends itself a signal just before it does a thing to a file."""

POINTS = {
    "a first snapshot begins": ("os.mkdir", r"state/2\.orbax"),
    "it is whole, but not in its place": ("os.rename", "state/2$"),
    "the one before is half deleted": ("os.rmdir", "state/2$"),
    "a later one is half written": ("open", r"state/6\.\S+/state\S+/_METADATA"),
    "the weights are not in their place": ("os.rename", "top/params$"),
    "the weights are there, the history is not": ("tempfile.mkstemp", "history.jsonl"),
    "all is there but the stamp": ("tempfile.mkstemp", r"stamps/edits/\.top\."),
    "the stamp is there, the state still too": ("shutil.rmtree", "top/state$"),
}
BEHIND = (None, None, "4", "4", "6", "6", "6", None)
"""Behind which step each start after those goes on; the last one has nothing to do."""


def stopped(args, cache, name: str, event: str, pattern: str) -> str:
    """What a process said that the signal reached at that point."""
    script = SIGNAL.format(event=event, pattern=pattern, name=name)
    status = -signal.SIGKILL if name == "SIGKILL" else STATUS
    return small_run.ended(small_run.start(args, cache, script=script), status)


def same_edit(run, other) -> None:
    """The same bits of weights, the same history but for the clock, nothing else."""
    assert small_run.weights(run) == small_run.weights(other)
    assert small_run.history(run) == small_run.history(other)
    made = ["history.jsonl", "params", "selection.json"]
    assert small_run.names(run / "edits/top") == made


def test_an_edit_killed_anywhere_ends_with_the_same_bits(small, tmp_path):
    run, cache = small_run.unfinished(small, tmp_path, "edits/top")
    args = ["edit", str(run)]
    for (event, pattern), behind in zip(POINTS.values(), (None, *BEHIND), strict=False):
        said = stopped(args, cache, "SIGKILL", event, pattern)
        assert ("going on behind step" in said) == (behind is not None), pattern
        assert behind is None or f"going on behind step {behind}\n" in said, pattern
    said = small_run.ended(small_run.start(args, cache))
    assert "edits/top: up to date" in said
    same_edit(run, small[1])


def test_sigterm_saves_and_the_same_command_goes_on(small, tmp_path):
    run, cache = small_run.unfinished(small, tmp_path, "edits/top", "scores/tracing")
    (run / "scores/tracing.json").unlink()
    args = ["run", str(run)]
    line = "mu: stopped by SIGTERM; run the same command to go on\n"
    said = stopped(args, cache, "SIGTERM", "open", "tracing.partial.new")
    assert said.endswith(line) and "Traceback" not in said
    assert not (run / "scores/tracing.json").exists() and not (run / "edits").exists()
    said = stopped(args, cache, "SIGTERM", "os.rename", "state/2$")
    assert said.endswith(line) and "Traceback" not in said
    assert small_run.names(run / "edits/top/state") == ["3"]
    said = small_run.ended(small_run.start(args, cache))
    assert "going on behind step 3\n" in said
    same_edit(run, small[1])
    path = "scores/tracing.json"
    assert (run / path).read_bytes() == (small[1] / path).read_bytes()
    for model in ("unedited", "top"):
        path = f"evals/{model}.jsonl"
        assert (run / path).read_bytes() == (small[1] / path).read_bytes()


def test_a_signal_is_noted_inside_and_obeyed_outside():
    preemption = Preemption()
    before = signal.getsignal(signal.SIGTERM)
    with preemption.watched():
        preemption.check()
        assert not preemption.came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.came()
        with pytest.raises(Preempted):
            preemption.check()
    assert signal.getsignal(signal.SIGTERM) == before
