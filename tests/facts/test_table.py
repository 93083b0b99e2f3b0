"""Files of records: what is read, and what is said of one that cannot be."""

import json

import datasets
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.table import read, read_csv, read_json

COLUMNS = ("athlete", "sport")


@pytest.fixture
def table(tmp_path):
    """Writes a CSV and returns its path."""

    def write(data: bytes | str) -> str:
        path = tmp_path / "people.csv"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return write


def test_rows_come_back_in_order_with_their_lines(table):
    path = table("athlete,sport\nPele,football\n\n Babe Ruth , baseball\n")
    rows = read_csv(path, COLUMNS)
    assert [dict(r) for r in rows] == [
        {"athlete": "Pele", "sport": "football"},
        {"athlete": "Babe Ruth", "sport": "baseball"},
    ]
    assert [r.place for r in rows] == [f"{path}, line 2", f"{path}, line 4"]


@pytest.mark.parametrize(
    ("text", "athletes"),
    [
        ('athlete,sport\n"Ruth, Babe",baseball\n', ["Ruth, Babe"]),
        ('athlete,sport\n"Babe ""Bambino"" Ruth",baseball\n', ['Babe "Bambino" Ruth']),
        ("\ufeffathlete,sport\nAndrés,golf\n", ["Andrés"]),
        ("athlete,sport\r\nPele,football\r\nRuth,baseball\r\n", ["Pele", "Ruth"]),
        ("athlete,sport\rPele,football\r", ["Pele"]),
        ("athlete,sport\nNA,golf\nnull,golf\n", ["NA", "null"]),
        ("athlete,sport\n007,golf\n1.50,golf\n", ["007", "1.50"]),
        (",athlete,sport\n0,Pele,football\n", ["Pele"]),
        ("athlete,sport,,\nPele,football,,x\n", ["Pele"]),
        ("sport,athlete,note,note\nfootball,Pele,a,b\n", ["Pele"]),
        ("athlete,sport\nPele,football", ["Pele"]),
    ],
    ids=[
        "comma in quotes",
        "quotes in quotes",
        "byte order mark",
        "CRLF",
        "CR",
        "words that pandas reads as missing",
        "numbers stay text",
        "an index without a name",
        "columns without a name",
        "other columns, one name twice",
        "no newline at the end",
    ],
)
def test_every_usual_csv_is_read(table, text, athletes):
    assert [r["athlete"] for r in read_csv(table(text), COLUMNS)] == athletes


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        ("athlete,sport\nPele,football\nRuth,baseball,x\n", 3, "3 cells"),
        ("athlete,sport\nPele,football\nRuth\n", 3, "1 cells"),
        ("athlete,sport\nPele,football\n   \n", 3, "1 cells"),
        ("athlete,sport\nPele,football\n  ,golf\n", 3, "no athlete"),
        ("athlete,sport\nPele,\n", 2, "no sport"),
        ('athlete,sport\n"Pe\nle",football\nRuth,\n', 4, "no sport"),
        ('athlete,sport\nPele,football\n"Ruth,golf\nA,golf\n', 3, "unexpected end"),
        ('athlete,sport\nPele,football\n"Ruth"x,golf\nA,golf\n', 3, "expected after"),
        (b"athlete,sport\nPele,football\nJos\xe9,golf\n", 3, "can't decode byte 0xe9"),
        (b"\xef\xbb\xbfathlete,sport\nJos\xe9,golf\n", 2, "can't decode byte 0xe9"),
        ("athlete,sport\nPele,golf\n".encode("utf-16"), 1, "can't decode byte"),
    ],
    ids=[
        "too many cells",
        "too few cells",
        "a row of blanks",
        "a blank cell",
        "an empty cell",
        "behind a row of two lines",
        "a quote that is never closed",
        "text behind a quote",
        "latin-1",
        "latin-1 behind a byte order mark",
        "utf-16",
    ],
)
def test_a_malformed_row_is_named_with_file_line_and_reason(table, data, line, reason):
    path = table(data)
    with pytest.raises(UserError) as error:
        read_csv(path, COLUMNS)
    assert f"{path}, line {line}: " in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns (none); expected also athlete, sport"),
        ("\n\n", "has the columns (none); expected also athlete, sport"),
        ("athlete,team\nPele,Santos\n", "columns athlete, team; expected also sport"),
        ("athlete,sport\n", "has no rows"),
        ("athlete,sport\n\n\n", "has no rows"),
    ],
    ids=["empty", "blank", "a column is missing", "a header only", "a header, blanks"],
)
def test_a_file_without_rows_or_columns_is_refused(table, text, said):
    path = table(text)
    with pytest.raises(UserError) as error:
        read_csv(path, COLUMNS)
    assert path in str(error.value) and said in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*check the path's spelling"):
        read_csv(str(tmp_path / "nope.csv"), COLUMNS)
    with pytest.raises(UserError, match="is a folder; expected a plain file"):
        read_csv(str(tmp_path), COLUMNS)


# ---- JSON, JSON Lines, Parquet

RECORDS = [
    {"subject": "Rome", "day": "2008-01-01", "lists": ["a", "b\u2028c"], "n": 1},
    {"subject": "Zürich", "object": {"str": "x"}, "n": None},
]


@pytest.fixture
def file(tmp_path):
    """Writes a file of any name and returns its path."""

    def write(name: str, data: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.JSON"])
@pytest.mark.parametrize(
    ("text", "places"),
    [
        (json.dumps(RECORDS), ["record 1", "record 2"]),
        ("\n [" + ",\n".join(map(json.dumps, RECORDS)) + "]", ["record 1", "record 2"]),
        ("\n".join(map(json.dumps, RECORDS)), ["line 1", "line 2"]),
        ("\r\n\r\n  \n".join(map(json.dumps, RECORDS)) + "\n", ["line 1", "line 4"]),
        (
            "\ufeff"
            + "\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS)
            + "\n",
            ["line 1", "line 2"],
        ),
    ],
    ids=["array", "array on lines", "lines", "CRLF, blank lines", "byte order mark"],
)
def test_json_comes_back_as_it_was_written(file, name, text, places):
    path = file(name, text)
    rows = read(path)
    assert [dict(r) for r in rows] == RECORDS
    assert [r.place for r in rows] == [f"{path}, {place}" for place in places]


def test_parquet_comes_back_as_it_was_written(tmp_path):
    rows = [{"subject": s, "lists": [s, "x"], "object": {"str": s}} for s in "abc"]
    path = str(tmp_path / "x.parquet")
    datasets.Dataset.from_list(rows).to_parquet(path)
    found = read(path)
    assert [dict(r) for r in found] == rows
    assert found[2].place == f"{path}, record 3"


@pytest.mark.parametrize(
    "name", ["a[1]", "b*", "q::r", "c?", "{x,y}", "x=1", "~", "%41"]
)
def test_a_name_is_no_pattern_and_no_address(tmp_path, name):
    """Beside each lies what a pattern would find."""
    for said, stem in enumerate([name, "a1", "bb", "cc", "x"]):
        (tmp_path / f"{stem}.csv").write_text(f"a\n{said}\n")
        rows = datasets.Dataset.from_dict({"a": [f"{said}"]})
        with (tmp_path / f"{stem}.parquet").open("wb") as target:
            rows.to_parquet(target)
    for suffix in ("csv", "parquet"):
        found = read(str(tmp_path / f"{name}.{suffix}"))
        assert [dict(row) for row in found] == [{"a": "0"}]


def test_csv_is_read_by_its_suffix(file):
    assert [dict(r) for r in read(file("x.csv", "a,b\n1, 2\n"))] == [
        {"a": "1", "b": "2"}
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"a": 1}\n{"a": }\n', "line 2: Expecting value"),
        ('{"a": 1}\n{"a": 2}}\n', "line 2: Extra data"),
        ('[{"a": 1},\n{"a" 2}]', "line 2: Expecting ':'"),
        ('[{"a": 1}', "line 1: Expecting ','"),
        ('{"a": 1}\n[1, 2]\n', "line 2: [1, 2]; expected an object"),
        ('[{"a": 1}, "text"]', 'record 2: "text"; expected an object'),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "line 2: 'utf-8' codec can't decode byte 0xe9"),
        ("[" * 100_000, "line 1: JSON nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: Exceeds the limit"),
        ("", "has no records"),
        ("\n \n", "has no records"),
        ("[]", "has no records"),
        ("null", "line 1: null; expected an object"),
    ],
)
def test_malformed_json_is_named_with_file_and_place(file, data, said):
    path = file("x.jsonl", data)
    with pytest.raises(UserError) as error:
        read_json(path)
    assert path in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all", b"\x80\x04K*."])
def test_what_is_no_parquet_is_refused(file, data):
    with pytest.raises(UserError, match=r"x\.parquet cannot be read .*a Parquet file"):
        read(file("x.parquet", data))


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    path = str(tmp_path / "x.parquet")
    datasets.Dataset.from_dict({"a": []}).to_parquet(path)
    with pytest.raises(UserError, match=r"has no rows; expected at least one fact"):
        read(path)


@pytest.mark.parametrize("name", ["x.pkl", "x.txt", "x"])
def test_other_suffixes_are_refused_unopened(file, name):
    with pytest.raises(UserError, match=r"ends in .*one of \.csv, \.json, \.jsonl"):
        read(file(name, b"\x80\x04K*."))


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.parquet", "x"])
def test_no_file_is_refused_whatever_its_suffix(tmp_path, name):
    with pytest.raises(UserError, match=r"no file .*check the path's spelling"):
        read(str(tmp_path / name))
