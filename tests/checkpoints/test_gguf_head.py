"""The head of a GGUF file: absurd numbers in it cost nothing, and are refused."""

import random
import resource
import struct
import time

import made_checkpoints as made
import pytest

from mu_jax.checkpoints.gguf import file as gguf
from mu_jax.errors import UserError

HUGE = 1 << 40


def head(fields: bytes = b"", *, tensors=0, n=1, version=3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, n) + fields


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def array(kind: int, n: int) -> bytes:
    return text("a") + struct.pack("<IIQ", 9, kind, n)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (head(array(0, HUGE)), f"it has {HUGE} items of an array"),
        (head(array(8, HUGE)), f"it has {HUGE} items of an array"),
        (head(array(9, 1)), "an array of the type 9"),
        (head(array(0, 1 << 20) * 3, n=3), "ends inside its head"),
        (head(array(6, 1000)), "ends inside its head"),
        (head(text("a") + struct.pack("<I", 77)), "a value of the unknown type 77"),
        (head(text("a") + struct.pack("<IQ", 8, HUGE)), f"{HUGE} bytes of text"),
        (head(n=HUGE), f"it has {HUGE} fields"),
        (head(n=0, tensors=HUGE), f"it has {HUGE} tensors"),
        (head(text("t") + struct.pack("<I", 99), n=0, tensors=1), "99 axes"),
        (head(version=4), "its version is 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "its version is 50331648"),
        (b"", "it is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_absurd_numbers_are_refused_at_once(tmp_path, data, message):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    begun = time.monotonic()
    with pytest.raises(UserError, match=rf"m\.gguf cannot be read .*{message}"):
        gguf.open_file(path)
    assert time.monotonic() - begun < 5


def test_arrays_are_long_together_too(tmp_path):
    path = tmp_path / "m.gguf"
    one = array(0, 1 << 20) + bytes(1 << 20)
    path.write_bytes(head(one * 3, n=3))
    with pytest.raises(UserError, match="arrays have more than"):
        gguf.open_file(path)


@pytest.mark.parametrize("kind", ["gemma3", "llama3"])
def test_strange_bytes_make_one_line_or_a_model(tmp_path, kind):
    """A field's numbers, types and texts changed at random: no trace, and no hang."""
    path = made.gguf_file(tmp_path / "m.gguf", made.model(kind))
    whole, draw = path.read_bytes(), random.Random(11)
    end = whole.index(b"token_embd.weight") + 3000  # with the first tensors
    memory, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 1, 3])):
            # Most of the head are tokens: as often as there, strike near its ends.
            at = draw.choice([draw.randrange(900), draw.randrange(end), end - 3000])
            at += draw.randrange(200)
            size = draw.choice([1, 1, 4, 8])
            strange = draw.choice([draw.randbytes(size), b"\xff" * size, bytes(size)])
            data[at : at + size] = strange
        path.write_bytes(data)
        try:
            gguf.open_file(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 50 < refused < 150
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 1 << 20  # KiB
