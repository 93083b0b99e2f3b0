"""The state of a running edit on disk."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from mu_jax.checkpoints.snapshots import SnapshotFolder
from mu_jax.devices.preemption import Preempted, Preemption
from mu_jax.devices.sharding import Mesh
from mu_jax.edits.gradient import GradientEdit
from mu_jax.errors import UserError
from mu_jax.selectors import Layers


def history(steps: int) -> list[dict[str, float]]:
    return [{"step": i, "loss": 0.1 * i + 1 / 3, "seconds": 0.5} for i in range(steps)]


def state(tiny, *mlps: int, seed: int = 0):
    """A state whose every number is another one."""
    selection = Layers(mlp=mlps)(None, tiny.sizes)
    plain = GradientEdit().start(tiny.network, selection, tiny.params)
    rng = np.random.default_rng(seed)

    def draw(a):
        value = rng.integers(99) if a.ndim == 0 else rng.standard_normal(a.shape)
        return jax.numpy.asarray(value, a.dtype)

    return jax.tree.map(draw, plain)


def bits(tree) -> list[tuple]:
    return [(a.dtype, a.shape, np.asarray(a).tobytes()) for a in jax.tree.leaves(tree)]


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(tmp_path, said):
    """Opens the folder as another process would."""
    opened = []

    def open_(fingerprint="f", every=2, preemption=None) -> SnapshotFolder:
        preemption = preemption or Preemption()
        path = tmp_path / "state"
        made = SnapshotFolder(path, fingerprint, every, preemption, said.append)
        opened.append(made)
        return made

    yield open_
    for one in opened:
        one.close()


@pytest.fixture
def saved(tiny, folder, tmp_path):
    """Two snapshots made, the second one kept."""
    kept = state(tiny, 1, 3)
    writer = folder()
    writer.save(state(tiny, 1, 3, seed=7), history(2))
    writer.save(kept, history(4))
    writer.close()
    return tmp_path / "state", kept


def test_what_is_restored_is_what_was_saved(saved, tiny, folder, said):
    like = state(tiny, 1, 3, seed=5)
    found, past = folder().restore(like)
    assert bits(found) == bits(saved[1]) != bits(like)
    assert jax.tree.structure(found) == jax.tree.structure(like)
    assert past == history(4)
    assert said == ["  going on behind step 4"]
    assert all(not a.committed for a in jax.tree.leaves(found))


def test_one_snapshot_is_kept_the_newest(saved):
    assert [entry.name for entry in saved[0].iterdir()] == ["4"]


def test_steps_between_are_not_saved(tiny, folder, tmp_path):
    writer = folder(every=3)
    for steps in (1, 2):
        writer.save(state(tiny, 1), history(steps))
    assert not (tmp_path / "state").exists()
    assert writer.restore(state(tiny, 1)) is None
    writer.save(state(tiny, 1), history(3))
    assert (tmp_path / "state" / "3").is_dir()


def test_a_stop_saves_whatever_the_interval(tiny, folder, tmp_path):
    preemption = Preemption()
    with preemption.watched():
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        folder(every=100, preemption=preemption).save(state(tiny, 1), history(1))
    assert folder(every=100).restore(state(tiny, 1))[1] == history(1)


def test_a_state_is_placed_as_the_one_it_replaces(saved, tiny, folder):
    replicated = Mesh().layout(jax.devices()[:1]).replicated
    like = jax.device_put(state(tiny, 1, 3), replicated)
    found, _ = folder().restore(like)
    assert bits(found) == bits(saved[1])
    assert {a.sharding for a in jax.tree.leaves(found)} == {replicated}


def test_other_settings_start_anew(saved, tiny, folder, said):
    assert folder("other").restore(state(tiny, 1, 3)) is None
    assert said == [f"  {saved[0]} was made with other settings: starting anew"]
    assert not saved[0].exists()


def test_what_an_interrupted_save_left_is_no_snapshot(saved, tiny, folder):
    half = saved[0] / "6.orbax-checkpoint-tmp"
    shutil.copytree(saved[0] / "4", half)
    (saved[0] / "2" / "state").mkdir(parents=True)  # half deleted
    found, past = folder().restore(state(tiny, 1, 3))
    assert bits(found) == bits(saved[1]) and past == history(4)
    assert [entry.name for entry in saved[0].iterdir()] == ["4"]


def test_a_folder_of_other_tensors_is_refused(saved, tiny, folder):
    for mlps in [(1,), (1, 3, 5)]:
        with pytest.raises(UserError, match=r"state holds .*mlp.down.*starts anew"):
            folder().restore(state(tiny, *mlps))
    selection = Layers(attn=(1,))(None, tiny.sizes)
    other = GradientEdit().start(tiny.network, selection, tiny.params)
    with pytest.raises(UserError, match=r"state holds .*starts anew"):
        folder().restore(other)


def test_foreign_folders_are_refused_by_name(tiny, folder, tmp_path):
    path = tmp_path / "state"
    path.write_text("hello")
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        folder().restore(state(tiny, 1))
    path.unlink()
    (path / "photos").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{path} with 'photos' in it"):
        folder().restore(state(tiny, 1))
    (path / "photos").rename(path / "17")
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        folder().restore(state(tiny, 1))
    assert (path / "17").is_dir()


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
@pytest.mark.parametrize("item", ["state", "record"])
def test_a_damaged_snapshot_is_refused_and_left(saved, tiny, folder, item, damage):
    path = saved[0]
    for file in [p for p in (path / "4" / item).rglob("*") if p.is_file()]:
        data = file.read_bytes()
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    with pytest.raises(UserError, match=f"{path} cannot be read") as error:
        folder().restore(state(tiny, 1, 3))
    assert "delete it, and the edit starts anew" in str(error.value)
    assert (path / "4").is_dir()


def test_one_damaged_file_changes_nothing_or_is_one_line(saved, tiny, folder, capfd):
    """Cut, missing, or JSON of another kind: never a state that was not saved."""
    path, kept = saved
    refused = 0
    for file in [p for p in (path / "4").rglob("*") if p.is_file()]:
        data = file.read_bytes()
        json = data[:1] == b"{"
        for damaged in (b"[" * 100_000,) if json else (data[: len(data) // 2], None):
            file.unlink(missing_ok=True)
            if damaged is not None:
                file.write_bytes(damaged)
            try:
                found, past = folder().restore(state(tiny, 1, 3, seed=5))
                assert bits(found) == bits(kept) and past == history(4), file
            except UserError as error:
                assert "\n" not in str(error) and "starts anew" in str(error)
                refused += 1
        file.write_bytes(data)
    assert refused > 3 and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "past",
    [history(3), history(4)[::-1], "history", [{"step": "x"}] * 4, None, [[1]] * 4],
    ids=str,
)
def test_a_history_with_gaps_is_refused(saved, tiny, folder, past):
    (file,) = [p for p in (saved[0] / "4" / "record").iterdir() if p.name == "metadata"]
    record = json.loads(file.read_text())
    assert record == {"fingerprint": "f", "history": history(4)}
    file.write_text(json.dumps({**record, "history": past}))
    with pytest.raises(UserError, match="cannot be read"):
        folder().restore(state(tiny, 1, 3))
