"""Sources placed on devices: the right parts, each read once, in bounded memory."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import made_checkpoints as made
import ml_dtypes
import numpy as np
import pytest
import small_run
from safetensors.numpy import save_file

from mu_jax.checkpoints.source import Memory, place
from mu_jax.errors import UserError
from mu_jax.model.params import shapes
from mu_jax.model.specs import llama3
from mu_jax.testing import tiny_model


@dataclasses.dataclass(frozen=True)
class Watched(Memory):
    """A source that notes what it is asked for."""

    asked: list = dataclasses.field(default_factory=list)

    def part(self, label, layer, index):
        value = super().part(label, layer, index)
        self.asked.append((label, layer, value.size))
        return value


def watched(kind: str) -> Watched:
    model = made.model(kind)
    return Watched(model.spec, model.params, model.tokenizer, kind)


@pytest.mark.parametrize("kind", made.SPECS)
def test_a_source_is_placed_as_it_is(kind):
    source = watched(kind)
    found = place(source)
    wanted = made.plain(source.params)
    assert list(found) == list(shapes(source.spec))
    for label, value in made.plain(found).items():
        assert value.tobytes() == wanted[label].tobytes()
        assert found[label].named_shape == shapes(source.spec)[label]
    assert max(size for _, _, size in source.asked) == 512 * 32


def test_bfloat16_is_rounded_once():
    source = watched("gemma2")
    for label, value in made.plain(place(source, dtype="bfloat16")).items():
        wanted = made.plain(source.params)[label]
        if not label.endswith("norm"):
            wanted = wanted.astype(ml_dtypes.bfloat16)
        assert value.tobytes() == wanted.tobytes()


def test_another_dtype_is_refused():
    with pytest.raises(UserError, match="'float64'; expected float32 or bfloat16"):
        place(watched("gemma1"), dtype="float64")


SHARDED = """
from mu_jax.devices.sharding import Mesh
from test_source import made, place, shapes, watched
for kind in made.SPECS:
    for mesh in (Mesh(), Mesh(2, 2, 2), Mesh(1, 2, 4), Mesh(1, 8, 1)):
        source = watched(kind)
        layout = mesh.layout()
        found = place(source, layout)
        wanted = made.plain(source.params)
        for label, value in made.plain(found).items():
            where = found[label].data_array.sharding
            assert value.tobytes() == wanted[label].tobytes(), (kind, label)
            assert where == layout.weights(shapes(source.spec)[label]), label
            read = sum(n for name, _, n in source.asked if name == label)
            assert read == value.size, (kind, str(mesh), label, read)
print("whole")
"""


def test_every_mesh_gets_the_same_and_a_replica_is_not_read_again():
    """Eight devices: what all of them together ask for is each parameter once."""
    assert run(SHARDED, devices=8).split() == ["whole"]


def run(code: str, *arguments: str, devices: int = 1) -> str:
    started = start(code, *arguments, devices=devices)
    out, error = started.communicate()
    assert started.returncode == 0, error
    return out


def start(code: str, *arguments: str, devices: int = 1) -> subprocess.Popen:
    found = [str(Path(__file__).parent), *sys.path]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(found)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WATCH = """
import re, sys, threading, time
from pathlib import Path

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) * 1024

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

def watched(function):
    global peak
    threading.Thread(target=watch, daemon=True).start()
    before = peak = anonymous()
    out = function()
    return out, peak - before
"""
"""Anonymous memory is what a process really takes; mapped files come and go."""

HALF = (
    WATCH
    + """
import jax
port, process, folder = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
from mu_jax.checkpoints.huggingface.folder import open_folder
from mu_jax.checkpoints.source import place
from mu_jax.devices.sharding import Mesh
layout = Mesh(data=1, fsdp=2).layout()
jax.block_until_ready(jax.numpy.zeros(1))
source = open_folder(Path(folder))
params, rise = watched(lambda: place(source, layout))
mine = sum(a.data_array.addressable_data(0).nbytes for a in params.values())
print(rise, mine)
"""
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A Llama of 300 MB in two files, and its size in bytes."""
    path = tmp_path_factory.mktemp("large")
    config = {
        **{"model_type": "llama", "vocab_size": 8192, "num_hidden_layers": 4},
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 8},
        **{"num_key_value_heads": 8, "tie_word_embeddings": True},
    }
    (path / "config.json").write_text(json.dumps(config))
    wide = {
        "gate_proj": (4096, 1024),
        "up_proj": (4096, 1024),
        "down_proj": (1024, 4096),
    }
    files = [
        {"model.embed_tokens.weight": (8192, 1024), "model.norm.weight": (1024,)},
        {},
    ]
    for i in range(4):
        at, file = f"model.layers.{i}.", files[i // 2]
        file |= {f"{at}mlp.{name}.weight": shape for name, shape in wide.items()}
        for name in "qkvo":
            file[f"{at}self_attn.{name}_proj.weight"] = (1024, 1024)
        for name in ("input", "post_attention"):
            file[f"{at}{name}_layernorm.weight"] = (1024,)
    listed, size = {}, 0
    for i, shaped in enumerate(files):
        listed |= dict.fromkeys(shaped, f"model-{i}.safetensors")
        tensors = {name: np.full(s, 0.5, np.float32) for name, s in shaped.items()}
        size += sum(value.nbytes for value in tensors.values())
        save_file(tensors, path / f"model-{i}.safetensors")
    index = {"weight_map": listed}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path, size


def test_a_process_with_half_of_the_shards_never_holds_the_model(large):
    """Its half, one shard of the largest parameter and one layer's matrices."""
    path, size = large
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    both = [start(HALF, port, str(i), str(path)) for i in range(2)]
    for started in both:
        out, error = started.communicate()
        assert started.returncode == 0, error
        rise, mine = map(int, out.split())
        assert 0.45 * size < mine < 0.52 * size
        assert mine * 0.9 < rise < 0.65 * size


CONVERT = (
    WATCH
    + """
from mu_jax.checkpoints import cache
from mu_jax.checkpoints.gguf import file as gguf
source = gguf.open_file(Path(sys.argv[1]))
_, rise = watched(lambda: cache.write(Path(sys.argv[2]), source))
print(rise, *(f.stat().st_size for f in Path(sys.argv[2]).glob("layer*")))
"""
)


def test_a_conversion_holds_a_few_layers(tmp_path):
    spec = llama3(
        "wide",
        layers=12,
        embedding=512,
        neurons=2048,
        heads=4,
        kv_heads=4,
        vocabulary=512,
        tied=True,
    )
    path = made.gguf_file(tmp_path / "m.gguf", tiny_model(spec))
    rise, *layers = map(int, run(CONVERT, str(path), str(tmp_path / "out")).split())
    assert len(layers) == 12
    assert rise < 3 * max(layers)


def test_a_checkpoint_that_one_worker_lacks_ends_all(tmp_path):
    """Each has a disk of its own, on which the others do not see it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    made.directory(here / "checkpoint", tiny_model())
    args = ["run", str(small_run.write(tmp_path)), "--runs", str(tmp_path / "runs")]
    args += ["--model", "checkpoint"]
    own = [f"import os; os.chdir({str(folder)!r})" for folder in (here, there)]
    for process in small_run.together(args, tmp_path / "cache", 2, 1, scripts=own):
        said = small_run.ended(process, 2)
        (line,) = (s for s in said.splitlines() if s.startswith("mu: "))
        assert "checkpoint" in line and "Traceback" not in said
