"""What comes from outside: URLs, what never ends, JSON that is a trap."""

import json
import os
import socket
from pathlib import Path

import pytest

from mu_jax import inputs
from mu_jax.__main__ import main
from mu_jax.checkpoints import cache
from mu_jax.errors import UserError
from mu_jax.load import load as load_model
from mu_jax.runs.config import Config
from mu_jax.runs.loading import load
from mu_jax.runs.records import encode

TINY = str(Path(__file__).parents[1] / "configs/tiny.py")


def refused(capsys, *args: str, status: int = 2) -> str:
    """Runs a command that must fail with one line; returns that line."""
    assert main(list(args)) == status
    said = capsys.readouterr()
    assert said.err.startswith("mu: ") and said.err.count("\n") == 1, said.err
    return said.err


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MU_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def started(tmp_path) -> str:
    """A run directory with nothing but its config."""
    (tmp_path / "run").mkdir()
    text = json.dumps({"config": encode(Config("mine", model="tiny"))})
    (tmp_path / "run/config.json").write_text(text)
    return str(tmp_path / "run")


BORDERS = {
    "target": ["run", "URL"],
    "target of plan": ["plan", "URL", "--topology", "v5e:4x4"],
    "target of sweep": ["sweep", "URL", "--over", "edit.seed", "0"],
    "--runs": ["run", TINY, "--runs", "URL"],
    "--runs=": ["run", TINY, "--runs=URL"],
    "--model": ["run", TINY, "--model", "URL"],
    "--model of plan": ["plan", TINY, "--topology", "v5e:4x4", "--model", "URL"],
    "--facts.path": ["run", TINY, "--facts.path", "URL"],
    "--text.path": ["run", TINY, "--text.path", "URL"],
    "--over": ["sweep", TINY, "--over", "facts.path", "URL"],
    "run to export": ["export", "URL", "--to", "delta", "out"],
    "export": ["export", "RUN", "--to", "delta", "URL"],
    "delta to show": ["delta", "show", "URL"],
    "delta to compare": ["delta", "diff", "URL", "URL"],
    "deltas to stack": ["delta", "stack", "URL", "URL", "out"],
    "stack": ["delta", "stack", "a", "b", "URL"],
    "delta to apply": ["delta", "apply", "tiny", "URL", "out"],
    "apply": ["delta", "apply", "tiny", "a", "URL"],
    "run to compare": ["compare", "RUN", "URL"],
    "--markdown": ["compare", "RUN", "--markdown", "URL"],
    "run to benchmark": ["harness", "URL", "--tasks", "sciq"],
    "--include-path": ["harness", "RUN", "--tasks", "sciq", "--include-path", "URL"],
}
URLS = ("gs://bucket/x", "s3://bucket/x.csv", "file:///x", "https://x.org/y.gguf")


@pytest.mark.parametrize("border", BORDERS)
def test_a_url_is_refused_at_every_border(capsys, tmp_path, started, border):
    (tmp_path / "cache").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for url in URLS:
        words = {"URL": url, "RUN": started}
        args = [words.get(a, a.replace("URL", url)) for a in BORDERS[border]]
        said = refused(capsys, *args)
        assert f"{url!r} is a URL" in said and "object storage" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_url_as_the_cache_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MU_JAX_CACHE", "gs://bucket/cache")
    assert "MU_JAX_CACHE 'gs://bucket/cache' is a URL" in refused(capsys, "run", TINY)
    with pytest.raises(UserError, match="is a URL"):
        cache.directory()
    assert not list(tmp_path.iterdir())


def test_a_url_in_a_config_of_any_kind_is_refused(capsys, tmp_path, started):
    path = Path(started, "config.json")
    record = json.loads(path.read_text())
    record["config"]["facts"]["path"] = "gs://bucket/facts.csv"
    path.write_text(json.dumps(record))
    assert "is a URL" in refused(capsys, "report", started)
    mine = tmp_path / "mine.py"
    text = "from mu_jax import *\nget_config = lambda: Config('x', model='gs://b/m')"
    mine.write_text(text)
    assert "is a URL" in refused(capsys, "run", str(mine))
    with pytest.raises(UserError, match="is a URL"):
        load_model("gs://bucket/model")


@pytest.mark.parametrize(
    "path",
    ["owner/name", "owner/name@main", "a:b", "C:/x", "/x//y", "./gs:", "~/x", ""],
)
def test_what_is_no_url_passes(path):
    assert inputs.local(path, "it") == Path(path)
    assert Config("x", model=path or "tiny").name == "x"


# ---- what is no plain file


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def socketed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(path.name)  # a path that may be too long for one


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


KINDS = {pipe: "a pipe", device: "a device", socketed: "a socket", sparse: "at most"}


@pytest.fixture(params=KINDS, ids=lambda make: make.__name__)
def endless(request):
    """Something that cannot be read to its end, and what is said of it."""
    return request.param, KINDS[request.param]


@pytest.mark.parametrize("setting", ["--facts.path", "--text.path"])
def test_an_input_that_never_ends_is_refused_at_once(
    capsys, tmp_path, started, endless, setting
):
    make, said = endless
    make(tmp_path / "x.csv")
    for args in (["run", TINY], ["report", started], ["export", started, "--to", "hf"]):
        if args[0] == "export":
            args.append("out")
            record = json.loads(Path(started, "config.json").read_text())
            part = setting[2:].partition(".")[0]
            record["config"][part]["path"] = str(tmp_path / "x.csv")
            Path(started, "config.json").write_text(json.dumps(record))
        else:
            args += [setting, str(tmp_path / "x.csv")]
        assert said in refused(capsys, *args)


@pytest.mark.parametrize(
    "settings", [["--facts.path"], ["--text.rows", "8", "--text.path"]]
)
def test_a_folder_with_something_endless_in_it_is_refused(
    capsys, tmp_path, settings, endless
):
    make, said = endless
    (tmp_path / "data").mkdir()
    os.chdir(tmp_path / "data")
    make(Path("x.csv").absolute())
    os.chdir(tmp_path)
    assert said in refused(capsys, "run", TINY, *settings, str(tmp_path / "data"))


def test_without_a_path_the_current_folder_is_nobodys(tmp_path, monkeypatch):
    """Facts and text that are shipped: a pipe in the way of nobody."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    inputs.ends(None)
    with pytest.raises(UserError, match="a pipe"):
        inputs.ends(tmp_path)


@pytest.mark.parametrize("path", ["gs:x", "hf:owner/name", "runs\\x"])
def test_what_looks_like_no_path_of_this_machine_is_refused(path):
    with pytest.raises(UserError):
        inputs.local(path, "--runs")


def test_the_whole_disk_is_no_data_set(capsys):
    config = str(Path(TINY).with_name("gemma3_270m_counterfact.py"))
    args = ["run", config, "--model", "tiny", "--facts.path", "/"]
    assert "/" in refused(capsys, *args)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "d/0"])
def test_a_model_with_something_endless_in_it_is_refused(tmp_path, endless, name):
    make, said = endless
    if make is sparse:
        return  # a weight file may have any size
    folder = tmp_path / "model"
    (folder / name).parent.mkdir(parents=True)
    os.chdir((folder / name).parent)
    make((folder / name).absolute())
    with pytest.raises(UserError, match=said):
        load_model(str(folder))


def test_a_config_that_never_ends_is_refused(capsys, tmp_path, started, endless):
    make, said = endless
    Path(started, "config.json").unlink()
    os.chdir(started)
    make(Path(started, "config.json"))
    assert said in refused(capsys, "report", started)
    os.chdir(tmp_path)
    make(tmp_path / "mine.py")
    if make is not sparse:
        assert "no config or run at" in refused(capsys, "run", "mine.py")


# ---- JSON, names


@pytest.mark.parametrize("depth", [65, 500, 3000, 100_000])
@pytest.mark.parametrize("marks", ["[]", ('{"a":', "}")], ids=["lists", "objects"])
def test_json_nested_deep_is_refused(depth, marks):
    text = marks[0] * depth + "1" + marks[1] * depth
    for data in (text, text.encode()):
        with pytest.raises(ValueError, match="nested too deep"):
            inputs.parsed(data)
    flat = f"[{','.join([marks[0] * 60 + '1' + marks[1] * 60] * 9)}]"
    assert inputs.parsed(flat) == json.loads(flat)


def test_a_name_too_long_for_a_file_is_refused(capsys, tmp_path):
    for args in (["--name", "x" * 129], ["--name", "x" * 5000]):
        assert "at most 128 letters" in refused(capsys, "run", TINY, *args)
    with pytest.raises(UserError, match="at most 128 letters"):
        Config("x", selections={"y" * 300: load(TINY).selections["early"]})
    assert "File name too long" in refused(capsys, "run", "x" * 300, status=1)
    assert not list(tmp_path.iterdir())
