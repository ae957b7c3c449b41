"""Java's truststore: its bytes, by what Java's own reader expects."""

from __future__ import annotations

import hashlib

from envbuild.compose.artifacts.deb.policy import keystore

GOLDEN = (
    "feedfeed" "00000002" "00000002"
    "00000002" "0001" "61" "0000000000000000" "0005" "582e353039" "00000002" "aabb"
    "00000002" "0001" "62" "0000000000000000" "0005" "582e353039" "00000001" "cc"
)  # fmt: skip


def test_a_store_is_its_entries_by_alias_and_a_keyed_digest() -> None:
    made = keystore({"b": b"\xcc", "a": b"\xaa\xbb"})
    assert made[:-20].hex() == GOLDEN
    keyed = "changeit".encode("utf-16-be") + b"Mighty Aphrodite" + bytes.fromhex(GOLDEN)
    assert made[-20:] == hashlib.sha1(keyed).digest()


def test_the_order_of_certificates_makes_no_difference() -> None:
    pairs = [(f"debian:{number}.pem", bytes([number])) for number in range(20)]
    assert keystore(dict(pairs)) == keystore(dict(reversed(pairs)))


def test_an_empty_store_is_whole() -> None:
    assert len(keystore({})) == 12 + 20
