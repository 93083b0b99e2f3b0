"""Pointers of git-lfs: the few lines that stand in a clone for a file not fetched."""

from pathlib import Path

from mu_jax.errors import UserError

_BEGINS = b"version https://git-lfs"
_LARGEST = 1024


def is_pointer(path: Path) -> bool:
    """Whether this file is one."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        with path.open("rb") as file:
            return file.read(len(_BEGINS)) == _BEGINS
    except OSError:
        return False  # whoever opens it says why


def check(path: Path) -> None:
    """Raises UserError if this file is one."""
    if is_pointer(path):
        raise UserError(
            f"{path} is a pointer of git-lfs, not the file it stands for",
            "the file itself",
            "run `git lfs pull` in the clone, or download the file",
        )
