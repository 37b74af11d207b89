from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.csvfiles import LINE_BYTES_MAX, BadLine, GoodLine, TrailerLine, read_csv
from gateway.errors import Unusable

KNOWN = ("a", "b", "c")


def read(path: Path, content: bytes) -> list[GoodLine | BadLine | TrailerLine]:
    path.write_bytes(content)
    return list(read_csv(path, known=KNOWN, required=("a", "b"), trailer="TRAILER"))


@pytest.mark.parametrize(
    "content",
    [
        b"a,b,c\n1,2,3\n",
        b"\xef\xbb\xbfa,b,c\r\n1,2,3\r\n",
        b"c;b;a\n3;2;1\n",
        b"x,a,y,b,c\nq,1,q,2,3",
        b'a,b,c\n"1"," 2 ",3\n\n',
    ],
    ids=["plain", "mark", "semicolon", "unknown columns", "quotes"],
)
def test_fields_are_read_by_name(tmp_path: Path, content: bytes) -> None:
    (line,) = read(tmp_path / "f.csv", content)
    assert isinstance(line, GoodLine)
    assert line.values == {"a": "1", "b": "2", "c": "3"}


@pytest.mark.parametrize(
    "bad",
    [
        b"1,2",
        b"1,2,3,4",
        b'"1,2,3',
        b'1,"2"x,3',
        b"1,\xff,3",
        b"1,\x00,3",
        b"1,2," + b"3" * LINE_BYTES_MAX,
        b"1,2," + b"3" * LINE_BYTES_MAX * 3,
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_kept(tmp_path: Path, bad: bytes) -> None:
    lines = read(tmp_path / "f.csv", b"a,b,c\n1,2,3\n" + bad + b"\n4,5,6\n")
    assert [type(line) for line in lines] == [GoodLine, BadLine, GoodLine]
    assert isinstance(lines[1], BadLine)
    assert lines[1].line == 3
    assert isinstance(lines[2], GoodLine)
    assert lines[2].number == 4


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"a,c\n", "column b"),
        (b"a,b,a\n", "a stands there twice"),
        (b"\xff,b\n", "UTF-8"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(Unusable, match=f"line 1.*{word}"):
        read(tmp_path / "f.csv", content)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be read"):
        list(read_csv(tmp_path / "none.csv", known=KNOWN, required=()))


@given(st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_lines_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    lines = read(tmp_path / "f.csv", b"a,b,c\n" + content)
    numbers = [line.line if isinstance(line, BadLine) else line.number for line in lines]
    assert numbers == sorted(set(numbers))
