"""What files hold, as a short text."""

import os

import pytest

from mu_jax.digests import digest


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    (made / "a").write_bytes(b"12")
    (made / "sub" / "b").write_bytes(b"3")
    return made


def test_it_is_of_the_contents_and_the_names(folder, tmp_path):
    before = digest(folder)
    os.utime(folder / "a", (1, 1))
    assert digest(folder.rename(tmp_path / "moved")) == before
    seen = {before}
    for path, content in (("a", b"13"), ("c", b""), ("sub/b", b""), ("a", b"123")):
        (tmp_path / "moved" / path).write_bytes(content)
        seen.add(digest(tmp_path / "moved"))
    assert len(seen) == 5


def test_what_one_file_ends_with_is_not_what_the_next_begins_with(folder, tmp_path):
    other = tmp_path / "other"
    (other / "sub").mkdir(parents=True)
    (other / "a").write_bytes(b"1")
    (other / "sub" / "b").write_bytes(b"23")
    assert digest(other) != digest(folder)


def test_what_fetched_a_folder_is_not_of_it(folder):
    """As `hf download --local-dir` and git leave it: with the time, hidden."""
    before = digest(folder)
    for name in (".cache/x", ".git/y", "sub/.z"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("now")
    assert digest(folder) == before


def test_of_nothing_it_is_empty(tmp_path):
    assert digest(tmp_path) == "" == digest(tmp_path / "none")


def test_a_large_file_is_sampled_all_over(tmp_path):
    """256 KiB changed anywhere are seen; most of the file is not read."""
    file = tmp_path / "weights"
    with file.open("wb") as data:
        data.truncate(300 << 20)  # takes no room on disk
    seen = {digest(file)}
    for at in (0, 100 << 20, (300 << 20) - (256 << 10)):
        with file.open("r+b") as data:
            data.seek(at)
            data.write(b"x" * (256 << 10))
        seen.add(digest(file))
    with file.open("ab") as data:
        data.write(b"x")
    assert len(seen | {digest(file)}) == 5
