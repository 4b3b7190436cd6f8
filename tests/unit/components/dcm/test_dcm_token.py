"""Join tokens: one word, every mistyped letter is found, and proofs that say nothing of the secret."""

from __future__ import annotations

import random
import shlex
import string

import msgspec
import pytest
from covey.components.dcm.definitions import KeptToken
from covey.components.dcm.token import CLOCK_STEP, PREFIX, Token, Transcript, parse, prove, proved, spend, wrong_with
from covey.errors import TokenInvalid
from hypothesis import given
from hypothesis import strategies as st

KEY = "0a" * 32
TOKEN = Token("0123456789abcdef", bytes(range(16)), KEY, 1_800_000_000)
SAID = Transcript("t", "c" * 32, TOKEN.id, "a" * 64, KEY, b"m" * 16)


@given(
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.one_of(st.just(b""), st.binary(min_size=32, max_size=32).filter(any)),
    st.integers(0, 2**40 - 1),
)
def test_a_token_comes_back_as_it_was(id: bytes, secret: bytes, key: bytes, expires: int) -> None:
    token = Token(id.hex(), secret, key.hex(), expires)
    assert parse(token.text()) == token
    assert shlex.quote(token.text()) == token.text()
    assert token.text().isalnum()


def test_what_a_person_adds_by_copying_does_not_matter() -> None:
    assert parse(f"  {TOKEN.text().upper()}\n") == TOKEN


def test_every_mistyped_letter_is_found() -> None:
    text = TOKEN.text()
    for place in range(len(text)):
        for letter in string.ascii_lowercase + string.digits + "-_é ":
            if letter != text[place]:
                with pytest.raises(TokenInvalid):
                    parse(text[:place] + letter + text[place + 1 :])


@pytest.mark.parametrize("seed", range(50))
def test_letters_left_out_doubled_or_exchanged_are_found(seed: int) -> None:
    chance, text = random.Random(seed), TOKEN.text()
    place = chance.randrange(len(PREFIX), len(text) - 1)
    changed = [text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:]]
    if text[place] != text[place + 1]:
        changed.append(text[:place] + text[place + 1] + text[place] + text[place + 2 :])
    for each in changed:
        with pytest.raises(TokenInvalid):
            parse(each)


@pytest.mark.parametrize("text", ["", PREFIX, "covey2" + "a" * 104, "x" * 10_000, "\0", PREFIX + "1" * 104])
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(TokenInvalid) as refused:
        parse(text)
    assert len(str(refused.value)) < 300


def test_no_error_shows_a_secret() -> None:
    text = TOKEN.text()
    with pytest.raises(TokenInvalid) as refused:
        parse(text[:-1] + ("a" if text[-1] != "a" else "b"))
    assert text[20:40] not in str(refused.value)


def test_a_proof_is_for_one_side_one_transcript_and_one_secret() -> None:
    proof = prove(TOKEN.secret, "knock", SAID)
    assert proved(proof, TOKEN.secret, "knock", SAID)
    assert not proved(proof, TOKEN.secret, "node", SAID)
    assert not proved(proof, bytes(16), "knock", SAID)
    assert not proved(proof[:-1], TOKEN.secret, "knock", SAID)
    assert not proved(b"", TOKEN.secret, "knock", SAID)
    for field in Transcript.__struct_fields__:
        old = getattr(SAID, field)
        other = msgspec.structs.replace(SAID, **{field: old + ("x" if isinstance(old, str) else b"x")})
        assert not proved(proof, TOKEN.secret, "knock", other), field


def test_fields_of_a_transcript_cannot_run_into_each_other() -> None:
    one = msgspec.structs.replace(SAID, transaction="ab", cluster_id="c")
    other = msgspec.structs.replace(SAID, transaction="a", cluster_id="bc")
    assert prove(TOKEN.secret, "knock", one) != prove(TOKEN.secret, "knock", other)


def test_when_a_token_holds() -> None:
    kept = KeptToken(TOKEN.secret, KEY, made=1000.0, expires=4600.0)
    tokens = {TOKEN.id: kept}
    assert wrong_with(tokens, TOKEN.id, 1000.0, KEY) is None
    assert wrong_with(tokens, TOKEN.id, 4599.9, KEY) is None
    assert wrong_with(tokens, TOKEN.id, 4600.0, KEY) == "expired"
    assert wrong_with(tokens, TOKEN.id, 1000.0 - CLOCK_STEP / 2, KEY) is None
    assert wrong_with(tokens, TOKEN.id, 1000.0 - 2 * CLOCK_STEP, KEY) == "expired", "a clock set back gives no time"
    assert wrong_with(tokens, TOKEN.id, 2000.0, "0b" * 32) == "key"
    assert wrong_with(tokens, "fedcba9876543210", 2000.0, KEY) == "unknown"
    spent = spend(kept)
    assert wrong_with({TOKEN.id: spent}, TOKEN.id, 2000.0, KEY) == "used"
    assert spent.secret == b""
