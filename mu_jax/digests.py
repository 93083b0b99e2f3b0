"""What files hold, as a short text: equal for equal contents, here or elsewhere.

A file is read whole up to 256 MiB; of a larger one, which is a checkpoint's, its size,
its beginning, and 4 KiB of every 256 KiB. So weights that were trained or edited are
told apart in seconds, and several hosts agree that each have their own copy.
"""

import hashlib
from pathlib import Path

_WHOLE = 256 << 20
_BLOCK, _EVERY = 4 << 10, 256 << 10


def digest(source: Path) -> str:
    """Of a regular file, or of those in a folder; empty where there is none.

    Hidden files do not count: of what fetched the folder, and when.

    Raises:
      OSError: one that cannot be read.
    """
    if source.is_file():
        files = [source]
    else:
        names = (f.relative_to(source).parts for f in source.rglob("*") if f.is_file())
        shown = (n for n in names if not any(part.startswith(".") for part in n))
        files = sorted(source.joinpath(*name) for name in shown)
    state = hashlib.sha256()
    for file in files:
        name = file.relative_to(source).as_posix()
        state.update(f"{name}\n{file.stat().st_size}\n".encode())
        _add(state, file)
    return state.hexdigest()[:16] if files else ""


def _add(state: "hashlib._Hash", file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as data:
        if size <= _WHOLE:
            while part := data.read(1 << 20):
                state.update(part)
        for start in range(0, size, _EVERY) if size > _WHOLE else ():
            data.seek(start)
            state.update(data.read(_BLOCK))
