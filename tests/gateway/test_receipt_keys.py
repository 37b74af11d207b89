from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.errors import Unusable
from gateway.receipt_keys import ReceiptKeys
from tests.factories import NOON, at_once


def test_the_first_key_is_made_once_however_many_ask_for_it(tmp_path: Path) -> None:
    signers = at_once(*[lambda: ReceiptKeys(tmp_path).signer(now=NOON)] * 8)
    assert len({signer.key_id for signer in signers}) == 1
    [published] = ReceiptKeys(tmp_path).published()
    assert published.key_id == signers[0].key_id
    assert published.public == signers[0].private.public_key()


def test_private_halves_are_for_their_owner_only(tmp_path: Path) -> None:
    signer = ReceiptKeys(tmp_path).signer(now=NOON)
    file = tmp_path / f"receipts-{signer.key_id}.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_bytes()
    assert secret not in (tmp_path / "receipts.json").read_bytes()


def test_a_former_key_stays_published_and_can_sign_no_more(tmp_path: Path) -> None:
    keys = ReceiptKeys(tmp_path)
    first = keys.signer(now=NOON)
    later = NOON + timedelta(days=30)
    second = keys.rotate(now=later)
    assert [(key.key_id, key.since, key.until) for key in keys.published()] == [
        (first.key_id, NOON, later),
        (second.key_id, later, None),
    ]
    assert keys.signer(now=later).key_id == second.key_id
    assert not (tmp_path / f"receipts-{first.key_id}.key").exists()


def test_a_lost_private_half_stops_signing_until_the_key_is_replaced(tmp_path: Path) -> None:
    keys = ReceiptKeys(tmp_path)
    lost = keys.signer(now=NOON).key_id
    (tmp_path / f"receipts-{lost}.key").unlink()
    with pytest.raises(Unusable, match="rotate-key"):
        keys.signer(now=NOON)
    assert keys.rotate(now=NOON).key_id != lost


def test_a_private_half_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    keys = ReceiptKeys(tmp_path)
    signer = keys.signer(now=NOON)
    file = tmp_path / f"receipts-{signer.key_id}.key"
    file.write_bytes(bytes(32))
    with pytest.raises(Unusable, match="not the private half"):
        keys.signer(now=NOON)
    file.write_bytes(b"short")
    with pytest.raises(Unusable, match="32 bytes"):
        keys.signer(now=NOON)


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{}]}', '{"keys": [{"kid": "a"}]}'])
def test_a_damaged_list_of_keys_is_said_to_be_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "receipts.json").write_text(content)
    with pytest.raises(Unusable, match=r"receipts\.json"):
        ReceiptKeys(tmp_path).published()


def test_what_is_published_is_a_key_set_that_others_can_read(tmp_path: Path) -> None:
    keys = ReceiptKeys(tmp_path)
    signer = keys.signer(now=NOON)
    [entry] = keys.as_json()["keys"]
    assert (entry["kty"], entry["crv"], entry["kid"]) == ("OKP", "Ed25519", signer.key_id)
    assert isinstance(keys.published()[0].public, Ed25519PublicKey)
    assert "d" not in entry


def test_a_private_half_that_a_crash_left_behind_is_destroyed(tmp_path: Path) -> None:
    keys = ReceiptKeys(tmp_path)
    former = keys.signer(now=NOON)
    keys.rotate(now=NOON)
    left = tmp_path / f"receipts-{former.key_id}.key"
    left.write_bytes(former.private.private_bytes_raw())
    keys.signer(now=NOON)
    assert not left.exists()
