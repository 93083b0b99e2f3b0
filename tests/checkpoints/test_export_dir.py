"""The directory of an export."""

import json

import pytest

from mu_jax.checkpoints.export_dir import NOTE, written
from mu_jax.errors import UserError


def put(directory, text, **how):
    with written(directory, {"edit": text}, **how) as folder:
        (folder / "file").write_text(text)


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_directory_appears_when_it_is_whole_and_an_export_replaces_it(tmp_path):
    target = tmp_path / "above" / "model"
    for text in ("first", "second"):
        put(target, text)
        assert listing(target.parent) == ["model"]
        assert listing(target) == ["file", NOTE]
        assert (target / "file").read_text() == text
        assert json.loads((target / NOTE).read_text()) == {"edit": text}
        assert target.stat().st_mode & 0o777 == 0o755


def test_what_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(RuntimeError), written(target, {}):
        raise RuntimeError
    assert listing(tmp_path) == []
    put(target, "first")
    with pytest.raises(RuntimeError), written(target, {}) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (target / "file").read_text() == "first"
    assert listing(tmp_path) == ["model"]


def test_a_directory_of_other_things_needs_force(tmp_path):
    target = tmp_path / "thesis"
    target.mkdir()
    put(target, "into an empty one")
    (target / NOTE).unlink()
    with pytest.raises(UserError, match=r"thesis holds other things.*--force"):
        put(target, "no")
    assert listing(target) == ["file"]
    put(target, "forced", force=True)
    assert (target / "file").read_text() == "forced"
    with pytest.raises(UserError, match="is a file"):
        put(target / "file", "no", force=True)


def test_what_an_export_is_made_of_is_left_alone(tmp_path, monkeypatch):
    base = tmp_path / "models" / "base"
    put(base, "base")
    for target in (base, base.parent, tmp_path / "link"):
        if target.name == "link":
            target.symlink_to(base)
        with pytest.raises(UserError, match="is or holds"):
            put(target, "no", force=True, sources=[base])
    for target in (base / "inside", tmp_path / "link" / "inside"):
        with pytest.raises(UserError, match="lies in"):
            put(target, "no", force=True, sources=[base])
    with pytest.raises(UserError, match="is or holds"):
        put(base, "no", sources=[base / "file"])
    monkeypatch.chdir(base)
    with pytest.raises(UserError, match="is or holds"):
        put(base.parent, "no", force=True)
    assert listing(base) == ["file", NOTE]
    put(base / "inside", "where one works is fine")
