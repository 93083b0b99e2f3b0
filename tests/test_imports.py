"""What `import mu_jax` costs."""

import subprocess
import sys

HEAVY = ("sklearn", "datasets", "tensorflow", "gemma", "matplotlib", "gguf", "torch")


def test_importing_the_library_loads_nothing_heavy_and_starts_no_backend():
    code = (
        "import sys, mu_jax\n"
        "from jax._src import xla_bridge\n"
        f"print([m for m in {HEAVY} if m in sys.modules])\n"
        "print(list(xla_bridge._backends))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]
