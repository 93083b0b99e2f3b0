"""A test that hangs, or that takes its worker down, is one failure; the others go on.

pytest's own limit (pyproject.toml) is the same, and runs while a test's function does:
anywhere else it would end the session.
"""

import pytest
from xdist.scheduler import LoadFileScheduling

HANGS = 3600
"""Seconds; far above what a slow and busy machine needs."""


class OnceEach(LoadFileScheduling):
    """Does not run again what a worker died of: xdist would, worker after worker."""

    def remove_node(self, node):
        for unit in self.assigned_work.get(node, {}).values():
            for test, done in unit.items():
                if not done:
                    unit[test] = True
                    super().remove_node(node)
                    return test
        return super().remove_node(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return OnceEach(config, log) if config.getvalue("dist") == "loadfile" else None
