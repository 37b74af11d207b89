"""Signatures that the standard library has none for, against an implementation of others."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.simulators.ed25519 import SigningKey
from gateway.simulators.signing import PrivateKey, SharedSecret, signer_of

SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""RFC 8032, 7.1, test 1."""


@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_ed25519_is_that_of_the_cryptography_library(seed: bytes, message: bytes) -> None:
    ours, theirs = SigningKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
    assert ours.public == theirs.public_key().public_bytes_raw()
    assert ours.sign(message) == theirs.sign(message)


def test_ed25519_is_that_of_the_published_vector() -> None:
    key = SigningKey(SEED)
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873")
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(SEED[:31])


def test_a_private_key_signs_v1a_and_a_secret_v1() -> None:
    key = signer_of("whsk_" + base64.b64encode(SEED).decode())
    assert isinstance(key, PrivateKey)
    version, _, made = key.sign("msg_1", 1_795_000_000, b"{}").partition(",")
    assert version == "v1a"
    public = base64.b64decode(key.public.removeprefix("whpk_"))
    Ed25519PublicKey.from_public_bytes(public).verify(
        base64.b64decode(made), b"msg_1.1795000000.{}"
    )
    secret = signer_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert isinstance(secret, SharedSecret)
    for signer in (key, secret):
        assert signer.other().sign("msg_1", 1, b"") != signer.sign("msg_1", 1, b"")
    with pytest.raises(ValueError, match="whsec_"):
        signer_of("sk_live_1234")
