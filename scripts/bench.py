"""Times mu_jax against its peers: same machine, weights, prompts and threads, float32.

    .venv/bin/python scripts/bench.py --quick

Installs the peers of scripts/peers.txt into .bench/peers (once), writes Gemma 3 270M as
a Hugging Face directory into .bench/weights (once), starts one process for mu_jax and
one for each peer, and lets them do the same work in turn. Stops if they disagree on the
logits or on a result. Writes bench.json and prints a table.

    tracing      16 corrupt prompts run once for every cell, with the clean activation
                 of one kind, layer and position put in: seconds a cell
    attribution  the gradient score of attention and MLP outputs at every layer and
                 position of the 16 prompts: seconds in all

Loading and the first call, which compiles, are reported apart (`*_load_s`,
`*_first_s`). Memory is the largest resident size of each process during the work.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
from peers import serve

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent / ".bench"
JOB, WEIGHTS = BENCH / "job.npz", BENCH / "weights"
ROWS, CHECKED, ASKED, LAYERS = 16, 20, 200, 18
KINDS = ("attn", "mlp", "resid")
TOLERANCE = 1e-3
"""Largest difference allowed: of logits of size 20, of tracing's logit differences, and
of attribution as a share of its largest score."""

TIMED = {
    "tracing": {
        ("transformer_lens", "tracing"): "TransformerLens generic_activation_patch",
        ("transformers", "forward"): "transformers, one plain forward (a floor)",
    },
    "attribution": {
        ("transformer_lens", "attribution"): "TransformerLens gradient cache",
        ("transformers", "attribution"): "transformers, hooks by hand",
    },
}
"""Work -> (worker, its command) -> what the peer does."""
NOTES = {
    "tracing": "the peer runs all layers and tokens and unembeds every position",
    "forward": "the peer patches nothing, and unembeds the last position only",
    "transformer_lens": "the peer unembeds every position",
    "transformers": "the peer unembeds the last position only, as we do",
}


def main() -> None:
    """The whole benchmark, in the order of the module's docstring."""
    args = arguments()
    works = args.only.split(",")
    if set(works) - TIMED.keys():
        sys.exit(f"bench: --only {args.only}; expected some of {','.join(TIMED)}")
    args.machine = machine(args.threads)
    print(f"bench: {args.machine}", flush=True)
    peers, workers, load = [environment(), HERE / "peers.py"], {}, {}
    try:
        for name in ("ours", "transformers", "transformer_lens"):
            mine, theirs = [sys.executable, __file__], [*peers, name, JOB, WEIGHTS]
            command = [*mine, "--worker"] if name == "ours" else theirs
            worker = workers[name] = Worker(name, command, args.threads)
            load[name] = worker.ask("load")["seconds"]
            if name == "ours":
                worker.ask("prepare")
            worker.ask("logits", save=True)
            agreed("logits", name)
        results = [r for work in works for r in timed(work, workers, load, args)]
    finally:
        for worker in workers.values():
            worker.process.kill()
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    table(results)


def timed(work: str, workers: dict, load: dict, args) -> list[dict]:
    """One work in turn: ours, each peer, ours again ...; medians of the repeats.

    The first call of each is checked and reported, and does not count.
    """
    cells = cells_of(args.quick) if work == "tracing" else []
    ours = ("ours", work)
    runs = {call: [] for call in (ours, *TIMED[work])}
    for turn in range(1 + args.repeats):
        for (name, do), answers in runs.items():
            if turn == 0:
                workers[name].ask("reset_peak")
            given = {"cells": cells} if do == "tracing" else {}
            answers.append(workers[name].ask(do, save=turn == 0, **given))
            if turn == 0 and do == work:
                agreed(work, name)
    parts = lambda call: len(cells) if call[1] == "tracing" else 1
    median = lambda call: statistics.median(a["seconds"] for a in runs[call][1:])
    seconds = {call: median(call) / parts(call) for call in runs}
    side = lambda who, call: {
        f"{who}_s": seconds[call],
        f"{who}_mb": max(answer["mb"] for answer in runs[call]),
        f"{who}_first_s": runs[call][0]["seconds"],
        f"{who}_load_s": load[call[0]],
    }
    return [
        {
            "work": work,
            "peer": title,
            **side("ours", ours),
            **side("peer", call),
            "ratio": seconds[call] / seconds[ours],
            "repeats": args.repeats,
            "unit": "s a cell" if cells else "s",
            "cells": len(cells) or None,
            "note": NOTES.get(call[1]) or NOTES[call[0]],
            "machine": args.machine,
        }
        for call, title in TIMED[work].items()
    ]


def cells_of(quick: bool) -> list[tuple[str, int, int]]:
    """(kind, layer, position) from the subject's first token to the prompt's end.

    Before it nothing differs. Quick: the lowest, middle and highest layer only.
    """
    with np.load(JOB) as job:
        positions = range(int(job["start"]), job["clean"].shape[1])
    layers = np.linspace(0, LAYERS - 1, 3 if quick else LAYERS).round().astype(int)
    return [(k, i, p) for k in KINDS for i in layers.tolist() for p in positions]


def agreed(what: str, name: str) -> None:
    """Stops the benchmark unless a worker's result is ours."""
    ours, theirs = (np.load(BENCH / f"{what}.{n}.npy") for n in ("ours", name))
    size = np.abs(ours).max() if what == "attribution" else 1.0
    off = np.abs(ours - theirs).max() / size
    if not off < TOLERANCE:
        sys.exit(f"bench: {what}: {name}'s differ from ours by {off:.2g}")
    if name != "ours":
        print(f"bench: {what}: as {name}, to {off:.0e}", flush=True)


class Worker:
    """A process that stays alive and obeys; see scripts/peers.py."""

    def __init__(self, name: str, command: list, threads: int):
        self.name, self.log = name, BENCH / f"{name}.log"
        env = {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
        env |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        how = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        how |= {"stderr": self.log.open("w"), "text": True, "env": os.environ | env}
        self.process = subprocess.Popen(command, **how)

    def ask(self, do: str, save: bool = False, **args) -> dict:
        """Sends one command and waits for its answer."""
        where = str(BENCH / f"{do}.{self.name}.npy") if save else ""
        command = json.dumps({"do": do, "args": args, "save": where})
        try:
            print(command, file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            answer = {"error": "the process died"}
        if "error" in answer:
            sys.exit(f"bench: {self.name}, {do}: {answer['error']}; see {self.log}")
        return answer


class Ours:
    """mu_jax's worker. It also makes what all work on: weights, prompts, checks."""

    def load(self) -> None:
        import mu_jax as mu

        self.model = mu.load("gemma3-270m")

    def prepare(self) -> None:
        """Writes the weights (if they are not there yet) and the prompts."""
        from safetensors.numpy import save_file

        import mu_jax as mu
        from mu_jax.checkpoints.huggingface.names import to_huggingface

        WEIGHTS.mkdir(exist_ok=True)
        if not (config := WEIGHTS / "config.json").exists():
            settings, tensors = to_huggingface(self.model.spec, self.model.params)
            save_file(tensors, WEIGHTS / "model.safetensors", {"format": "pt"})
            config.write_text(json.dumps(settings, indent=2))
        tokenizer, known, source = self.model.tokenizer, mu.KnownFilter(), mu.Sports()
        template = source.templates[0]
        asked = known.ask(self.model, source.load()[:ASKED], template)
        facts = [fact for fact, _ in known.keep(asked)]
        self.check = mu.prompts([template(f) for f in facts[:CHECKED]], tokenizer)
        self.clean, self.corrupt = pairs(facts, template, tokenizer)
        one, other, check = self.clean, self.corrupt, self.check
        job = {"clean": one.tokens, "corrupt": other.tokens, "check": check.tokens}
        job |= {"options": one.options, "answer": one.answer, "last": check.last}
        job["start"] = one.subject.argmax(axis=1).min()
        np.savez(JOB, **{name: np.int64(array) for name, array in job.items()})

    def logits(self):
        return self.model.run(self.check).logits

    def tracing(self, cells: list):
        return ours_tracing(self.model, self.clean, self.corrupt, cells)

    def attribution(self):
        return ours_attribution(self.model, self.clean, self.corrupt)


def ours_tracing(model, clean, corrupt, cells: list):
    """[cell, row] the logit difference of each row under each cell."""
    from mu_jax.localizers.patched_runs import Cell
    from mu_jax.localizers.tracing import CausalTracing
    from mu_jax.types import Site

    asked = [Cell((Site(layer, kind),), where) for kind, layer, where in cells]
    return CausalTracing(kinds=KINDS).trace(model, clean, corrupt, asked)[0]


def ours_attribution(model, clean, corrupt):
    """[kind, layer, row, position] scores, divided by the summed effect."""
    from mu_jax.localizers.attribution import AttributionPatching

    how = AttributionPatching(kinds=("attn", "mlp"), rows=ROWS, batch=ROWS)
    maps = how.maps(model, clean, corrupt)
    return np.stack([maps[kind] for kind in how.kinds])


def pairs(facts: list, template, tokenizer):
    """ROWS clean prompts of one length, and the same ones about another athlete."""
    import mu_jax as mu

    length = lambda fact: len(tokenizer.encode(template(fact).text).ids)
    common = statistics.mode(map(length, facts))
    facts = [fact for fact in facts if length(fact) == common]
    pair = mu.OtherSubject()(facts, facts, template, tokenizer)
    return pair.clean.rows(slice(ROWS)), pair.corrupt.rows(slice(ROWS))


def environment() -> Path:
    """The peers' interpreter; their environment is made anew when peers.txt changes."""
    pinned, folder = HERE / "peers.txt", BENCH / "peers"
    wanted = hashlib.sha256(pinned.read_bytes() + sys.version.encode()).hexdigest()
    stamp, python = folder / "made-of", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("bench: installing the peers, about two minutes", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "-r", pinned]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench: pip failed: {done.stderr.strip()[-200:]}")
        stamp.write_text(wanted)
    return python


def machine(threads: int) -> str:
    """The processor, its threads, and how busy it was: peers on a busy one crawl."""
    info = Path("/proc/cpuinfo")
    names = re.findall("model name.*: (.*)", info.read_text()) if info.exists() else []
    used = f"{threads} threads of {os.cpu_count()}"
    busy = f"load {os.getloadavg()[0]:.1f} before"
    return ", ".join([[*names, platform.machine()][0], used, busy])


def table(results: list[dict]) -> None:
    """What was measured, as lines that fit a terminal."""
    print(f"\n{'work':13}{'peer':42}{'ours s':>8}{'peer s':>8}{'ratio':>7}{'MB':>11}")
    for r in results:
        numbers = f"{r['ours_s']:8.3f}{r['peer_s']:8.3f}{r['ratio']:7.2f}"
        print(f"{r['work']:13}{r['peer']:42}{numbers}{r['ours_mb']:6}/{r['peer_mb']}")


def arguments():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--only", default="tracing,attribution", help="works, separated by commas")
    add("--quick", action="store_true", help="trace three layers instead of all")
    add("--repeats", type=int, default=3, help="timed turns; the median counts (3)")
    add("--threads", type=int, default=2, help="of each process (2)")
    add("--out", type=Path, default=Path("bench.json"), help="results (bench.json)")
    return parser.parse_args()


if __name__ == "__main__":
    serve(Ours()) if "--worker" in sys.argv else main()
