"""The sizes of every released network that can be named, as one table."""

import difflib

from mu_jax.errors import UserError
from mu_jax.model.specs import STRETCHED, Spec, gemma1, gemma2, gemma3, llama3

SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        gemma1(
            "gemma-2b", layers=18, embedding=2048, neurons=16384, heads=8, kv_heads=1
        ),
        gemma1(
            "gemma-7b", layers=28, embedding=3072, neurons=24576, heads=16, kv_heads=16
        ),
        gemma2(
            "gemma2-2b", layers=26, embedding=2304, neurons=9216, heads=8, kv_heads=4
        ),
        gemma2(
            "gemma2-9b", layers=42, embedding=3584, neurons=14336, heads=16, kv_heads=8
        ),
        gemma2(
            "gemma2-27b",
            layers=46,
            embedding=4608,
            neurons=36864,
            heads=32,
            kv_heads=16,
            projection=128,
            query_scale=(4608 // 32) ** -0.5,
        ),
        gemma3(
            "gemma3-270m",
            layers=18,
            embedding=640,
            neurons=2048,
            heads=4,
            kv_heads=1,
            window=512,
            global_scale=1.0,
            context=32_768,
        ),
        gemma3(
            "gemma3-1b",
            layers=26,
            embedding=1152,
            neurons=6912,
            heads=4,
            kv_heads=1,
            window=512,
            global_scale=1.0,
            context=32_768,
        ),
        gemma3(
            "gemma3-4b", layers=34, embedding=2560, neurons=10240, heads=8, kv_heads=4
        ),
        gemma3(
            "gemma3-12b", layers=48, embedding=3840, neurons=15360, heads=16, kv_heads=8
        ),
        gemma3(
            "gemma3-27b",
            layers=62,
            embedding=5376,
            neurons=21504,
            heads=32,
            kv_heads=16,
            projection=128,
            query_scale=(5376 // 32) ** -0.5,
        ),
        llama3(
            "llama3-8b", layers=32, embedding=4096, neurons=14336, heads=32, kv_heads=8
        ),
        llama3(
            "llama3.1-8b",
            layers=32,
            embedding=4096,
            neurons=14336,
            heads=32,
            kv_heads=8,
            context=131_072,
            stretch=STRETCHED,
        ),
        llama3(
            "smollm2-135m",
            layers=30,
            embedding=576,
            neurons=1536,
            heads=9,
            kv_heads=3,
            projection=64,
            vocabulary=49_152,
            wavelength=100_000.0,
            tied=True,
        ),
    )
}


def spec(name: str) -> Spec:
    """The row of the table called `name`; raises UserError with the nearest names."""
    if name in SPECS:
        return SPECS[name]
    near = difflib.get_close_matches(name, SPECS, n=2, cutoff=0.4)
    raise UserError(
        f"unknown model {name!r}",
        f"one of {', '.join(SPECS)} or the path of a .gguf file",
        f"perhaps you meant {' or '.join(near)}" if near else "",
    )
