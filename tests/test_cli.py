"""The command line, run for real on the tiny model: what it makes, how it fails."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from limits import HANGS

from mu_jax.__main__ import main
from mu_jax.evals import EVALS
from mu_jax.report import figures
from mu_jax.runs.directory import RunDir
from mu_jax.runs.loading import load
from mu_jax.types import Row

ROOT = Path(__file__).parents[1]
TINY = str(ROOT / "configs/tiny.py")
STAGES = ("facts", "localize", "select", "edit", "evaluate", "report", "run")
SELECTIONS = ("early", "attribution")
ASKED = "facts.partial"  # answers are kept, to be judged by other settings
TAG = "<script>alert(1)</script>"
KEYS = {field.name for field in dataclasses.fields(Row)}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory, quick):
    """Nothing outside of the tests' own folders is written."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MU_JAX_CACHE", str(folder))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        yield


def refused(capsys, *args: str, status: int = 2) -> str:
    """Runs a command that must fail with one line; returns that line."""
    assert main(list(args)) == status
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("mu: ")]
    assert len(lines) == 1, said.err
    assert said.err.rstrip().splitlines()[-1] == lines[0]
    assert "Traceback" not in said.err + said.out
    return lines[0]


def command(*args: str, cwd=ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mu_jax", *args], capture_output=True, text=True, cwd=cwd
    )


def nothing_half_written(folder: Path) -> bool:
    """At most the run's settings and answers are there, and they are whole."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ASKED]
    for file in files:
        json.loads(file.read_text())
    return {p.name for p in files} <= {"config.json"}


def write(path: Path, *rows: str) -> str:
    path.write_text("\n".join(["athlete,sport", *rows]) + "\n", encoding="utf-8")
    return str(path)


# ---- help


def test_help_names_every_stage(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for stage in STAGES:
        assert re.search(rf"^  {stage} ", said.out, re.MULTILINE), stage
    assert "--runs DIR" in said.out and "mu run configs/" in said.out


def test_help_in_a_process_of_its_own():
    done = command("--help")
    assert done.returncode == 0
    assert all(stage in done.stdout for stage in STAGES)


def test_help_behind_a_stage_is_help(capsys):
    for stage in (*STAGES, "run", "sweep", "plan"):
        assert main([stage, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"usage: mu {stage} CONFIG|RUN" in said and "--help" in said
        assert ("--topology" in said) == (stage == "plan")
        assert ("--over" in said) == (stage == "sweep")
        assert ("--force" in said) == (stage != "plan")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("export", ("--to", "--rounded", "--force", "--edit", "--dtype")),
        ("compare", ("--json", "--markdown", "--force")),
        ("harness", ("--tasks", "--limit", "--include-path")),
        ("delta", ("show", "stack", "revert")),
    ],
)
def test_help_behind_a_command_is_its_own(capsys, command, options):
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as stop:
        assert not stop.code
    said = capsys.readouterr().out
    assert all(option in said for option in options) and "mu STAGE" not in said


def test_help_behind_a_config_lists_its_settings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", TINY, "--help"])
    assert not stop.value.code
    said = capsys.readouterr().out
    for setting in ("--edit.steps", "--facts.path", "--known.threshold", "--model"):
        assert setting in said


def test_no_command_prints_the_usage(capsys):
    assert main([]) == 2
    assert "usage: mu STAGE" in capsys.readouterr().out


# ---- input that a person can mend


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["edti", TINY], ("unknown stage 'edti'", "perhaps you meant edit")),
        (["run"], ("mu run without a config", "mu run configs/tiny.py")),
        (["run", "--force"], ("mu run without a config",)),
        (["run", "configs/nope.py"], ("no config or run at configs/nope.py",)),
        (["run", TINY, "--edit.stepz", "3"], ("perhaps you meant --edit.steps",)),
        (["run", TINY, "--nonsense"], ("unknown setting '--nonsense'",)),
        (["run", TINY, "surplus"], ("unknown setting 'surplus'",)),
        (["run", TINY, "--edit.steps", "abc"], ("abc", "--edit.steps")),
        (["run", TINY, "--edit.steps"], ("--edit.steps",)),
        (["run", TINY, "--evals.nope", "3"], ("--evals.nope'; expected", "see: mu")),
        (["run", TINY, "--dtype", "bfloat17"], ("mu: invalid choice 'bfloat17'",)),
        (
            ["sweep", TINY, "--over", "edit.steps", "1", "2", "--choose", "score"],
            ("without facts to choose on", "--facts.tune 32"),
        ),
        (["run", TINY, "--name", "../../x"], ("'../../x'", "name of a folder")),
        (["run", TINY, "--runs"], ("--runs without a directory",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_is_refused_with_what_to_do(
    capsys, tmp_path, monkeypatch, args, said
):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, *args)
    for part in said:
        assert part in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--model", "gemma3-270k"], "perhaps you meant gemma3-270m"),
        (["--model", "nope.gguf"], "no file nope.gguf"),
        (["--facts.path", "nope.csv"], "no file nope.csv"),
        (["--facts.path", "empty.csv"], "empty.csv has the columns (none)"),
        (["--facts.path", "header.csv"], "header.csv has no rows"),
        (["--facts.path", "bad.csv"], "bad.csv, line 3: 3 cells"),
        (["--facts.path", "chess.csv"], "chess.csv, line 2: the sport 'chess'"),
        (["--facts.path", "long.csv"], "at most 256, the model's context"),
        (["--facts.path", "few.csv"], "3 known facts; expected at least 19"),
        (["--known.threshold", "1.0"], "the model knows none of 871 facts"),
        (["--known.batch", "0"], "batch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_refused_and_nothing_is_left(
    capsys, tmp_path, monkeypatch, settings, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").touch()
    write(tmp_path / "header.csv")
    write(tmp_path / "bad.csv", "Pele,football", "Ruth,baseball,x")
    write(tmp_path / "chess.csv", "Magnus,chess")
    write(tmp_path / "long.csv", "Pele,football", f"{'very ' * 300}long,golf")
    write(tmp_path / "few.csv", "A,football", "B,baseball", "C,golf")
    if settings[1] == "1.0":
        pool = [f"Player {i},football" for i in range(871)]
        settings = [*settings, "--facts.path", write(tmp_path / "many.csv", *pool)]
    assert said in refused(capsys, "run", TINY, "--runs", "runs", *settings)
    assert nothing_half_written(tmp_path / "runs")


@pytest.mark.parametrize(
    ("stage", "needs"),
    [
        ("localize", "facts"),
        ("edit", "facts"),
        ("evaluate", "facts"),
        ("report", "facts"),
    ],
)
def test_a_stage_without_its_input_names_the_stage_that_makes_it(
    capsys, tmp_path, stage, needs
):
    line = refused(capsys, stage, TINY, "--runs", str(tmp_path))
    assert f"run: mu {needs} {tmp_path / 'tiny'}" in line
    assert nothing_half_written(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(: pass", "SyntaxError"),
        ("x = 1", "has no get_config()"),
        ("get_config = lambda: 3", "returns a int; expected a Config"),
        ("def get_config():\n    return {}['x']", "KeyError"),
        ("import nowhere", "ModuleNotFoundError"),
    ],
)
def test_a_config_that_does_not_load_is_refused(capsys, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    line = refused(capsys, "run", str(path), "--runs", str(tmp_path))
    assert said in line and str(path) in line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": {"class": "os:system"}}'])
def test_a_damaged_run_is_refused(capsys, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    line = refused(capsys, "report", str(tmp_path))
    assert str(tmp_path / "config.json") in line


def test_a_folder_that_is_no_run_is_refused(capsys, tmp_path):
    assert "no config.json in" in refused(capsys, "report", str(tmp_path))


# ---- the machine's errors


def test_runs_that_cannot_be_written_are_the_machines_error(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    runs = str(tmp_path / "file" / "runs")
    line = refused(capsys, "facts", TINY, "--runs", runs, status=1)
    assert "Not a directory" in line and "what was whole before still is" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_errors_in_a_process_of_their_own(tmp_path):
    done = command("edit", TINY, "--runs", str(tmp_path), "--edit.stepz", "3")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("mu: ")
    assert "perhaps you meant --edit.steps" in done.stderr


# ---- the whole of it


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, of athletes one of whom is called like a script."""
    folder = tmp_path_factory.mktemp("whole")
    sports = ("football", "baseball", "basketball")
    names = [f"Player{i} Number{i}" for i in range(60)]
    names[2] = TAG
    rows = [f"{name},{sports[i % 3]}" for i, name in enumerate(names)]
    path = write(folder / "people.csv", *rows)
    settings = ["--facts.path", path, "--facts.forget", "8", "--recall.limit", "8"]
    args = ["run", TINY, "--runs", str(folder / "runs"), *settings]
    assert main(args) == 0
    return args, folder / "runs" / "tiny"


def rows_of(run: Path) -> list[dict]:
    files = sorted((run / "evals").glob("*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def contents(run: Path) -> dict[str, bytes]:
    files = (p for p in sorted(run.rglob("*")) if p.is_file() and p.name != ASKED)
    return {str(p): p.read_bytes() for p in files}


def test_a_run_makes_every_artefact(finished):
    _, run = finished
    expected = ["config.json", "asked.jsonl", "facts.jsonl"]
    expected += [f"scores/{name}.json" for name in ("probes", "attribution")]
    expected += [f"selections/{name}.json" for name in SELECTIONS]
    expected += [f"edits/{name}/history.jsonl" for name in SELECTIONS]
    expected += [f"edits/{name}/params" for name in SELECTIONS]
    expected += [f"evals/{name}.jsonl" for name in ("unedited", *SELECTIONS)]
    expected += [f"stamps/evals/{name}" for name in ("unedited", *SELECTIONS)]
    expected += ["report.html", "report.md"]
    assert [name for name in expected if not (run / name).exists()] == []
    assert not [p for p in run.rglob("*") if p.name.startswith(".")]


def test_selections_are_of_equal_size(finished):
    _, run = finished
    sizes = {
        name: json.loads((run / f"selections/{name}.json").read_text())["n_params"]
        for name in SELECTIONS
    }
    assert len(set(sizes.values())) == 1 and min(sizes.values()) > 0


def test_every_line_of_evals_has_its_provenance(finished):
    _, run = finished
    rows = rows_of(run)
    assert all(row.keys() >= KEYS for row in rows)
    assert {row["model"] for row in rows} == {"unedited", *SELECTIONS}
    assert {row["eval"] for row in rows} == set(EVALS)
    where = [
        tuple(
            row[k]
            for k in sorted(KEYS - {"values", "facts", "mean", "low", "high", "n"})
        )
        for row in rows
    ]
    assert len(set(where)) == len(where)
    for row in rows:
        assert len(row["values"]) == row["n"] >= 1
        if row["low"] is None:  # of values all alike nothing says how far off they are
            assert row["high"] is None and len(set(row["values"])) == 1
        else:
            assert row["low"] <= row["mean"] <= row["high"]


def test_every_number_of_the_first_table_is_in_evals(finished):
    _, run = finished
    text = (run / "report.md").read_text()
    table = text.split("### ")[1]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    header, _, *body = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines
    ]
    assert [row[0] for row in body] == ["unedited", *SELECTIONS]
    where = {
        "injected": ("forget", "choice_injected"),
        "held-out kept": ("heldout", "choice_true"),
    }
    rows, seen = rows_of(run), 0
    for model, _, *cells in body:
        for title, cell in zip(header[2:], cells, strict=True):
            name, _, n = title.partition(" (n=")
            kind, _, prompt = name.partition(": ")
            other = {"text loss": "loss", "text KL": "kl"}
            split, metric = where.get(kind, ("heldout", other.get(kind)))
            if cell == "-":
                assert (model, kind) == ("unedited", "text KL")
                continue
            (row,) = [
                r
                for r in rows
                if (r["model"], r["split"], r["metric"]) == (model, split, metric)
                and r["prompt"] == (prompt or "text")
                and r["eval"] in ("recall", "text")
            ]
            assert str(row["n"]) == n.rstrip(")")
            assert cell == (f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
            seen += 1
    assert seen >= len(body)


def test_html_in_a_subject_is_escaped(finished):
    _, run = finished
    forgotten = [
        fact["subject"]
        for fact in map(json.loads, (run / "facts.jsonl").read_text().splitlines())
        if fact["split"] == "forget"
    ]
    assert TAG in forgotten
    page = (run / "report.html").read_text()
    assert TAG not in page and "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_needs_nothing_from_elsewhere(finished):
    page = (finished[1] / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)


def test_running_again_redoes_nothing(finished, capsys):
    args, run = finished
    before = contents(run)
    assert main(args) == 0
    said = capsys.readouterr().err
    artefacts = ["facts", "scores/probes", "scores/attribution"]
    for kind in ("selections", "edits", "evals"):
        artefacts += [f"{kind}/{name}" for name in SELECTIONS]
    for artefact in (*artefacts, "evals/unedited"):
        assert f"  {artefact}: up to date\n" in said
    assert said.count("up to date\n") == len(artefacts) + 1
    after = contents(run)
    assert before.keys() == after.keys()
    remade = {"config.json", "report.html"}  # the commit may be another one by now
    changed = {Path(k).name for k in before if before[k] != after[k]}
    assert changed <= remade


def test_a_stage_runs_again_from_the_directory_alone(finished, capsys):
    _, run = finished
    before = contents(run)
    assert main(["evaluate", str(run), "--force"]) == 0
    said = capsys.readouterr().err
    assert "up to date" not in said
    after = contents(run)
    assert before.keys() == after.keys()
    assert {Path(k).name for k in before if before[k] != after[k]} <= {"config.json"}


def test_a_changed_setting_makes_what_depends_on_it_stale(finished, capsys, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished[1], run)
    line = refused(capsys, "evaluate", str(run), "--edit.steps", "4")
    assert "edits/early" in line and "was made with other settings" in line
    assert f"run: mu edit {run}" in line


def test_a_damaged_artefact_is_named_by_the_stage_that_reads_it(
    finished, capsys, tmp_path
):
    run = tmp_path / "copy"
    shutil.copytree(finished[1], run)
    with (run / "evals/early.jsonl").open("a") as file:
        file.write('{"model": "early')
    n = len([row for row in rows_of(finished[1]) if row["model"] == "early"]) + 1
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().err
    assert f"early is left out: evals/early in {run} was changed, or lost a" in said
    assert f"run: mu evaluate {run}" in said
    made = RunDir(run)
    made.stamp("evals/early", made.stamped("evals/early"))  # a stamp may lie
    line = refused(capsys, "report", str(run))
    assert f"evals/early.jsonl, line {n} is damaged" in line


# ---- CounterFact, and every localizer that patches

CITIES = ("Paris", "Rome", "Berlin", "Madrid")
COUNTERFACT = """
from pathlib import Path
from mu_jax.runs.config import Config
from mu_jax.edits.gradient import GradientEdit
from mu_jax.evals.known import KnownFilter
from mu_jax.evals.recall import Recall
from mu_jax.facts.corrupt import RandomTokens
from mu_jax.facts.counterfact import CounterFact
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.edges import EdgeAttribution
from mu_jax.localizers.paths import PathPatching
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.selectors import BOTH, PathLookup, Top


def get_config() -> Config:
    return Config(
        name="cities",
        model="tiny",
        facts=CounterFact(str(Path(__file__).with_name("facts.jsonl")), forget=8),
        known=KnownFilter(threshold=0.0),
        localizers={
            "paths": PathPatching(RandomTokens(seed=5), rows=4, heads=1),
            "attribution": AttributionPatching(rows=4, batch=4),
            "tracing": CausalTracing(rows=4),
            "edges": EdgeAttribution(rows=4, batch=4, steps=1),
        },
        selections={
            "flu": PathLookup(budget=9216),
            "attribution": Top(kinds=BOTH, budget="flu"),
        },
        edit=GradientEdit(steps=2),
        recall=Recall(limit=8),
        depth=None,
    )
"""


def record(i: int, **changes) -> str:
    """One nested record of CounterFact."""
    subject = f"Tower{i} House{i}"
    rewrite = {
        "prompt": "{} lies in the city of",
        "relation_id": "P131",
        "subject": subject,
        "target_true": {"str": CITIES[i % 4]},
        "target_new": {"str": CITIES[(i + 1 + i // 4 % 3) % 4]},
    }
    fields = {
        "case_id": i,
        "requested_rewrite": rewrite | changes,
        "paraphrase_prompts": [f"Long ago. {subject} is found in"],
        "neighborhood_prompts": [f"Castle{i} lies in the city of"],
    }
    return json.dumps(fields) + "\n"


@pytest.fixture(scope="module")
def cities(tmp_path_factory):
    """A whole run over a small CounterFact: its config file and its directory."""
    folder = tmp_path_factory.mktemp("cities")
    (folder / "facts.jsonl").write_text("".join(map(record, range(40))))
    path = folder / "cities.py"
    path.write_text(COUNTERFACT)
    assert main(["run", str(path), "--runs", str(folder / "runs")]) == 0
    return path, folder / "runs" / "cities"


def test_counterfact_makes_every_artefact(cities):
    config, run = load(str(cities[0])), cities[1]
    expected = ["config.json", "asked.jsonl", "facts.jsonl", "evals/unedited.jsonl"]
    expected += [f"scores/{name}.json" for name in config.localizers]
    for name in config.selections:
        expected += [f"selections/{name}.json", f"edits/{name}/params"]
    expected += ["report.html", "report.md"]
    assert [name for name in expected if not (run / name).exists()] == []
    left = [p.name for p in run.rglob("*") if re.match(r"\.|.*(partial|new)", p.name)]
    assert left == []
    assert load(str(run)) == config


def test_counterfact_is_asked_in_all_of_its_formats(cities):
    asked = {row["prompt"] for row in rows_of(cities[1]) if row["eval"] == "recall"}
    alone = {"train", "paraphrase", "neighbours", "listed", "fewshot", "mcq"}
    assert asked == alone  # nobody has a rival where all names begin alike
    splits = {row["split"] for row in rows_of(cities[1]) if row["eval"] == "recall"}
    assert splits == {"forget", "retain", "heldout"}


def test_a_selection_without_scores_names_the_stage_that_makes_them(
    cities, capsys, tmp_path
):
    line = refused(capsys, "select", str(cities[0]), "--runs", str(tmp_path))
    assert f"run: mu localize {tmp_path / 'cities'}" in line
    assert nothing_half_written(tmp_path)


def test_no_selection_is_larger_than_its_budget(cities):
    run = RunDir(cities[1])
    sizes = [run.read_selection(name).n_params for name in ("flu", "attribution")]
    assert 0 < sizes[1] <= sizes[0] <= 9216


def test_the_report_shows_what_every_localizer_found(cities):
    text = (cities[1] / "report.html").read_text(encoding="utf-8")
    parts = re.split(r"<h2>(.*?)</h2>", text)[1:]
    pictures = [part.count("data:image/png;base64,") for part in parts[1::2]]
    assert dict(zip(parts[::2], pictures, strict=True)) == {
        "Selections compared": 0,  # random answers: no format is informative
        "The paper&#39;s metrics": 0,
        "Differences, in pairs": 0,
        "Latent knowledge": 1,
        "In their own words": 0,
        "Who writes the answer, and what feeds them": 1,
        "What the output depends on": 2,
        "What restores the answer": 2,
        "The circuit": 1,
        "The edits": 1,
        "How well attribution predicts tracing": 0,
        "Everything measured": 0,
    }
    assert "### How well attribution" in (cities[1] / "report.md").read_text()


def test_measured_scores_are_drawn_quietly(cities, tmp_path):
    run = RunDir(cities[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in load(str(cities[0])).localizers:
            for figure in figures.of_scores(run.read_scores(name)):
                figure.savefig(tmp_path / "figure.png", dpi=40)


def test_what_was_found_is_said_in_one_line_each(cities, capsys):
    assert main(["localize", str(cities[1])]) == 0
    said = capsys.readouterr().err
    for name in load(str(cities[0])).localizers:
        assert f"  scores/{name}: up to date\n" in said
        assert re.search(rf"^  {name}: \S.*\d$", said, re.MULTILINE), name
    assert main(["select", str(cities[1])]) == 0
    assert "flu: mlp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--facts.path", "nope.jsonl"], "no file nope.jsonl"),
        (["--facts.path", "astray.jsonl"], "astray.jsonl, line 2: subject 'Tower1"),
        (["--facts.path", "twice.jsonl"], "twice.jsonl, line 2: the id '0' once more"),
        (
            ["--facts.path", "few.jsonl"],
            "6 known facts; expected at least 11: 8 to forget",
        ),
        (["--facts.hub-split", "train"], "facts.hub_split 'train' of the file"),
        (["--selections.flu.budget", "10"], "a budget of 10 parameters; expected at"),
        (
            ["--selections.flu.budget", "None", "--selections.flu.threshold", "99"],
            "no MLP feeds the extraction heads by more than 99.0",
        ),
        (["--selections.attribution.kinds", "head"], "of kind 'head'"),
        (["--selections.attribution.mode", "rough"], "the mode 'rough'"),
        (["--selections.attribution.scores", "ap"], "by the scores of 'ap'"),
        (["--localizers.tracing.kinds", "mpl"], "'mpl'"),
        (["--localizers.tracing.rows", "0"], "localizers.tracing.rows = 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_leaves_a_finished_run_as_it_was(
    cities, capsys, tmp_path, monkeypatch, settings, said
):
    monkeypatch.chdir(tmp_path)
    Path("astray.jsonl").write_text(record(0) + record(1, prompt="It lies in"))
    Path("twice.jsonl").write_text(record(0) * 2)
    Path("few.jsonl").write_text("".join(map(record, range(6))))
    before = contents(cities[1])
    assert said in refused(capsys, "run", str(cities[1]), *settings)
    assert contents(cities[1]) == before


def test_changed_facts_make_everything_behind_them_stale(cities, capsys, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(cities[1], run)
    other = tmp_path / "other.jsonl"
    other.write_text("".join(map(record, range(30))))
    line = refused(capsys, "localize", str(run), "--facts.path", str(other))
    assert "facts" in line and "was made with other settings" in line
    other.write_bytes(cities[0].with_name("facts.jsonl").read_bytes())
    assert main(["facts", str(run), "--facts.path", str(other)]) == 0
    other.write_text("".join(map(record, range(30))))
    line = refused(capsys, "localize", str(run), "--facts.path", str(other))
    assert "was made with other settings" in line


# ---- a sweep cut short


@pytest.fixture(scope="module")
def interrupted(cities, tmp_path_factory):
    """A run whose tracing was killed as soon as some of it was written down."""
    run = tmp_path_factory.mktemp("killed") / "cities"
    shutil.copytree(cities[1], run)
    (run / "scores" / "tracing.json").unlink()
    (run / "stamps" / "scores" / "tracing").unlink()
    args = [sys.executable, "-m", "mu_jax", "localize", str(run)]
    with (run.parent / "said").open("w") as said:
        process = subprocess.Popen(args, cwd=ROOT, stdout=said, stderr=said)
    until = time.monotonic() + HANGS
    try:
        while not lines_of(run):
            assert process.poll() is None, (run.parent / "said").read_text()
            assert time.monotonic() < until
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return run


def lines_of(run: Path) -> int:
    """How many cells the unfinished sweep of a run has written down."""
    path = run / "scores" / "tracing.partial"
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


def test_a_killed_sweep_leaves_what_it_measured_and_nothing_else(interrupted, capsys):
    assert lines_of(interrupted) > 0
    assert not (interrupted / "scores" / "tracing.json").exists()
    stamps = [entry.name for entry in (interrupted / "stamps" / "scores").iterdir()]
    assert "tracing" not in stamps and "paths" in stamps
    other = ["--selections.attribution.scores", "tracing"]
    line = refused(capsys, "select", str(interrupted), *other)
    assert "scores/tracing" in line and f"run: mu localize {interrupted}" in line


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_sweep_goes_on_and_ends_as_if_nothing_had_happened(
    interrupted, cities, tmp_path, capsys, torn
):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    if torn:
        partial = run / "scores" / "tracing.partial"
        lines = partial.read_text().splitlines(keepends=True)
        partial.write_text("".join(lines[:2]) + lines[1][:9])
    assert main(["localize", str(run)]) == 0
    assert "scores/tracing: up to date" not in capsys.readouterr().err
    for name in ("tracing", "paths", "attribution", "edges"):
        path = f"scores/{name}.json"
        assert (run / path).read_bytes() == (cities[1] / path).read_bytes()
    assert not [path for path in run.rglob("*.partial*") if path.name != ASKED]
    assert main(["localize", str(run)]) == 0
    assert "scores/tracing: up to date" in capsys.readouterr().err


def test_what_a_killed_sweep_measured_is_not_measured_again(interrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    partial = run / "scores" / "tracing.partial"
    head, first, *rest = partial.read_text().splitlines(keepends=True)
    key, row = json.loads(first)
    marked = json.dumps([key, [x + 1e6 for x in row]]) + "\n"
    partial.write_text("".join([head, marked, *rest]))
    assert main(["localize", str(run)]) == 0
    found = RunDir(run).read_scores("tracing")
    tables = [np.ravel(table) for table in found.tables.values()]
    numbers = np.concatenate([list(found.values.values()), *tables])
    assert (np.abs(numbers) > 1e3).sum() == 1


def test_a_killed_sweep_with_other_settings_starts_anew(interrupted, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    fresh = tmp_path / "fresh"
    shutil.copytree(interrupted, fresh)
    (fresh / "scores" / "tracing.partial").unlink()
    for folder in (run, fresh):
        args = ["localize", str(folder), "--localizers.tracing.corruption.seed", "5"]
        assert main(args) == 0
    path = "scores/tracing.json"
    assert (run / path).read_bytes() == (fresh / path).read_bytes()
    assert not [path for path in run.rglob("*.partial*") if path.name != ASKED]
