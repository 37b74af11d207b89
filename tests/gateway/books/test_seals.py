from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.books.seals import Head, HeadsFile, SignedHead, UnreadableHead, books_key, read_head
from gateway.errors import Unusable


def heads(tmp_path: Path, first: int, last: int) -> list[SignedHead]:
    key = books_key(tmp_path)
    return [key.sign(Head(n, n * 2, n * 100, bytes([n]) * 32)) for n in range(first, last + 1)]


def test_a_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: books_key(tmp_path / "keys").id, range(8)))
    assert len(ids) == 1
    (file,) = (tmp_path / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_file_that_is_no_key_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "books.key").write_bytes(b"short")
    with pytest.raises(Unusable, match=r"books\.key"):
        books_key(tmp_path)


def test_a_key_vouches_for_its_own_heads_only(tmp_path: Path) -> None:
    ours, theirs = books_key(tmp_path / "a"), books_key(tmp_path / "b")
    signed = ours.sign(Head(1, 2, 3, bytes(32)))
    assert ours.vouches_for(signed)
    assert not theirs.vouches_for(signed)
    for other in (Head(2, 2, 3, bytes(32)), Head(1, 3, 3, bytes(32)), Head(1, 2, 4, bytes(32))):
        assert not ours.vouches_for(SignedHead(other, signed.key_id, signed.signature))
    assert not ours.vouches_for(SignedHead(signed.head, ours.id, bytes(64)))


def test_heads_are_appended_once_and_in_order(tmp_path: Path) -> None:
    file = HeadsFile(tmp_path / "books/heads.jsonl")
    file.create()
    assert file.last_batch() == 0
    assert file.append(heads(tmp_path, 1, 3)) == 3
    assert file.append(heads(tmp_path, 2, 5)) == 2
    assert file.append(heads(tmp_path, 7, 8)) == 0
    assert [read_head(line) for line in file.lines()] == heads(tmp_path, 1, 5)


def test_many_may_append_at_once(tmp_path: Path) -> None:
    file = HeadsFile(tmp_path / "heads.jsonl")
    file.create()
    wanted = heads(tmp_path, 1, 60)
    with ThreadPoolExecutor(8) as pool:
        appended = list(pool.map(lambda _: file.append(wanted), range(8)))
    assert sum(appended) == 60
    assert [read_head(line) for line in file.lines()] == wanted


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_cut_by_a_crash_is_replaced(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "heads.jsonl"
    file = HeadsFile(path)
    file.create()
    file.append(heads(tmp_path, 1, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert file.last_batch() == 2
    assert file.append(heads(tmp_path, 1, 4)) == 2
    assert path.read_bytes().startswith(whole)


def test_a_file_that_was_edited_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(Unusable, match="wasl verify"):
        HeadsFile(path).append(heads(tmp_path, 1, 1))


def test_a_file_that_was_taken_away_is_not_made_anew(tmp_path: Path) -> None:
    file = HeadsFile(tmp_path / "heads.jsonl")
    with pytest.raises(Unusable, match="restore"):
        file.append(heads(tmp_path, 1, 1))
    assert not file.exists()


@given(st.binary(max_size=200))
def test_any_line_is_a_head_or_refused(line: bytes) -> None:
    try:
        read_head(line)
    except UnreadableHead:
        return
    assert b'"batch"' in line
