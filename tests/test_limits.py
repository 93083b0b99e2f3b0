"""The test command itself, on tests that hang and die."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFTEST = """
import time
from limits import pytest_xdist_make_scheduler

def pytest_runtest_logreport(report):
    if "slowly_reported" in report.nodeid and report.when == "setup":
        time.sleep(4)
"""
HANGING = """
import time
def test_before(): pass
def test_hanging(): time.sleep(600)
def test_slowly_reported(): pass
"""
DYING = """
import os, signal
def test_before(): pass
def test_dying(): os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
"""


def test_what_hangs_or_dies_is_one_failure(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "limits.py").write_text((ROOT / "tests/limits.py").read_text())
    (tests / "conftest.py").write_text(CONFTEST)
    (tests / "test_hanging.py").write_text(HANGING)
    (tests / "test_dying.py").write_text(DYING)
    script = (ROOT / "scripts/test.sh").read_text()
    (own,) = re.findall(r"set -- (-n 2 .*)", script)
    command = [sys.executable, "-m", "pytest", "-q", *own.split(), "-o", "timeout=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "INTERNALERROR" not in done.stdout
    failed = re.findall(r"^FAILED tests/\S+::(\S+)", done.stdout, re.M)
    assert sorted(failed) == ["test_dying", "test_hanging"]
    assert re.search(r"^2 failed, 4 passed", done.stdout, re.M), done.stdout[-3000:]
