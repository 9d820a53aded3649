"""The vault: which key encrypts, which decrypt, and what happens without the right one."""

import base64
from collections.abc import Callable

import pytest

from notifier.security.secret_box import CannotDecrypt, Vault, new_key
from notifier.vocabulary.errors import Conflict

SECRET = "whsec_c2VjcmV0LW9mLWEtc3Vic2NyaXB0aW9u"

Use = Callable[[Vault, bytes], object]
USES: list[Use] = [lambda vault, token: vault.decrypt(token), lambda vault, token: vault.rotate(token)]


def test_what_is_encrypted_comes_back() -> None:
    vault = Vault([new_key()])
    token = vault.encrypt(SECRET)
    assert vault.decrypt(token) == SECRET
    assert SECRET.encode() not in token
    assert SECRET.encode() not in base64.urlsafe_b64decode(token)


def test_the_same_secret_never_looks_the_same() -> None:
    vault = Vault([new_key()])
    assert len({vault.encrypt(SECRET) for _ in range(20)}) == 20


def test_keys_are_fresh() -> None:
    assert len({new_key() for _ in range(20)}) == 20


@pytest.mark.parametrize("secret", ["", "é☃ 💌", "x" * 10_000])
def test_any_text_can_be_kept(secret: str) -> None:
    vault = Vault([new_key()])
    assert vault.decrypt(vault.encrypt(secret)) == secret


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old, new = new_key(), new_key()
    before = Vault([old]).encrypt(SECRET)
    both = Vault([new, old])
    assert both.decrypt(before) == SECRET
    assert Vault([new]).decrypt(both.encrypt(SECRET)) == SECRET
    with pytest.raises(CannotDecrypt):
        Vault([old]).decrypt(both.encrypt(SECRET))


def test_after_a_rotation_the_old_key_can_go() -> None:
    old, middle, new = new_key(), new_key(), new_key()
    token = Vault([old]).encrypt(SECRET)
    rotated = Vault([new, middle, old]).rotate(token)
    assert Vault([new]).decrypt(rotated) == SECRET
    assert Vault([new]).decrypt(Vault([new]).rotate(rotated)) == SECRET
    with pytest.raises(CannotDecrypt):
        Vault([middle, old]).decrypt(rotated)
    assert Vault([old]).decrypt(token) == SECRET


@pytest.mark.parametrize("use", USES, ids=["decrypt", "rotate"])
def test_a_wrong_key_says_so_each_time_and_repeats_nothing(use: Use) -> None:
    token = Vault([new_key()]).encrypt(SECRET)
    vault = Vault([new_key(), new_key()])
    for _ in range(2):
        with pytest.raises(CannotDecrypt, match="NOTIFIER_SECRET_KEY") as error:
            use(vault, token)
        assert token.decode() not in str(error.value)


@pytest.mark.parametrize("use", USES, ids=["decrypt", "rotate"])
@pytest.mark.parametrize("damage", ["", "plain", "cut", "flipped", "not-ascii"])
def test_a_damaged_secret_is_not_decrypted(use: Use, damage: str) -> None:
    vault = Vault([new_key()])
    token = vault.encrypt(SECRET)
    middle = len(token) // 2
    damaged = {
        "": b"",
        "plain": SECRET.encode(),
        "cut": token[:-8],
        "flipped": token[:middle] + bytes([token[middle] ^ 1]) + token[middle + 1 :],
        "not-ascii": b"\xff\x00",
    }[damage]
    with pytest.raises(CannotDecrypt):
        use(vault, damaged)
    assert vault.decrypt(token) == SECRET


def test_without_keys_nothing_can_be_kept_and_it_says_why() -> None:
    token = Vault([new_key()]).encrypt(SECRET)
    vault = Vault([])
    for use in (lambda: vault.encrypt(SECRET), lambda: vault.decrypt(token), lambda: vault.rotate(token)):
        with pytest.raises(Conflict, match="NOTIFIER_SECRET_KEY is not set"):
            use()


@pytest.mark.parametrize("key", ["", "short", "a" * 44, "!" * 43 + "=", base64.b64encode(b"x" * 31).decode()])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Vault([new_key(), key])
