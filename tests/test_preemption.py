"""Killed anywhere and started again, a run ends as one that was never disturbed."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import small_run

from mu_jax.checkpoints import delta
from mu_jax.preemption import STATUS, Preempted, Preemption
from mu_jax.run_dir import RunDir
from mu_jax.testing import tiny_spec

KILLER = """
import os, signal, sys
event, pattern, count = {event!r}, {pattern!r}, {count}
seen = 0
def watch(name, args):
    global seen
    if name == event and any(pattern in str(a) for a in args):
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.{signal})
sys.addaudithook(watch)
"""
"""Sends a signal to itself just before it does something to a file, for the n-th time."""

POINTS = {
    "a snapshot is begun": ("os.mkdir", "state/2.", 1),
    "it is about to be renamed into its place": ("os.rename", "state/2", 1),
    "the one before is deleted": ("shutil.rmtree", "state/2", 1),
    "a later one is half written": ("os.mkdir", "state/6.", 2),
    "the weights are about to be renamed": ("os.rename", "top/params", 1),
    "the weights are there, the history is not": ("open", "history.jsonl", 1),
    "all is there but for the stamp": ("open", ".stamps.json", 1),
    "the stamp is there, the state still too": ("shutil.rmtree", "top/state", 1),
}
