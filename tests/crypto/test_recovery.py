import pytest
import shamir_mnemonic
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic.wordlist import WORDLIST

from replicator.crypto.derive import hkdf
from replicator.crypto.recovery import (
    WORD_COUNT,
    from_words,
    new_secret,
    root_of,
    suspects,
    to_words,
    unknown_words,
    whole_word,
)
from replicator.crypto.sign import SigningKey
from replicator.errors import KeyWrongError
from tests.fakes import SeededRng

SECRET = bytes(range(32))
WORDS = to_words(SECRET)


def test_a_secret_is_33_words_of_the_list() -> None:
    assert len(WORDS) == WORD_COUNT == 33
    assert unknown_words(WORDS) == []


@settings(max_examples=10, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_the_words_give_the_secret_back(secret: bytes) -> None:
    assert from_words(to_words(secret)) == secret


def test_case_and_white_space_do_not_matter() -> None:
    assert from_words([f" {word.upper()}\n" for word in WORDS]) == SECRET


def test_an_unknown_word_is_named_with_its_position() -> None:
    typed = [*WORDS]
    typed[4] = "acedemic"
    with pytest.raises(KeyWrongError, match=r"word 5 \('acedemic'\)") as caught:
        from_words(typed)
    assert "paper" in caught.value.hint
    assert unknown_words(typed) == [(5, "acedemic")]


def test_no_more_than_three_unknown_words_are_named() -> None:
    with pytest.raises(KeyWrongError) as caught:
        from_words(["nonsense"] * WORD_COUNT)
    assert caught.value.message.count("nonsense") == 3


def test_every_swap_of_neighbours_is_found() -> None:
    for at in range(WORD_COUNT - 1):
        swapped = [*WORDS]
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        if swapped == WORDS:
            continue
        with pytest.raises(KeyWrongError, match="do not fit together") as caught:
            from_words(swapped)
        assert "checksum" in caught.value.hint


def test_one_wrong_word_of_the_list_is_found_in_every_place() -> None:
    for at in range(WORD_COUNT):
        wrong = [*WORDS]
        wrong[at] = "academic" if wrong[at] != "academic" else "acid"
        with pytest.raises(KeyWrongError, match="do not fit together"):
            from_words(wrong)


@pytest.mark.parametrize("count", [0, 1, 20, 32])
def test_too_few_words_are_counted(count: int) -> None:
    with pytest.raises(KeyWrongError, match=f"33 words, {count} were given"):
        from_words(WORDS[:count])


def test_too_many_words_are_counted() -> None:
    with pytest.raises(KeyWrongError, match="33 words, 34 were given"):
        from_words([*WORDS, WORDS[0]])


def test_one_share_of_several_is_not_enough() -> None:
    [[one, _, _]] = shamir_mnemonic.generate_mnemonics(1, [(2, 3)], SECRET)
    with pytest.raises(KeyWrongError, match="do not fit together"):
        from_words(one.split())


def test_words_of_a_shorter_secret_are_not_enough() -> None:
    [[words]] = shamir_mnemonic.generate_mnemonics(1, [(1, 1)], bytes(16))
    with pytest.raises(KeyWrongError, match="33 words, 20 were given"):
        from_words(words.split())


def test_root_is_derived_and_differs_in_both_keys() -> None:
    root = root_of(SECRET)
    assert root.signing.public == SigningKey(hkdf(SECRET, label=b"root sign")).public
    assert root.seal_private == hkdf(SECRET, label=b"root seal")
    assert root.signing.seed() != root.seal_private
    assert root_of(bytes(32)).seal_private != root.seal_private


def test_root_never_shows_its_secrets() -> None:
    root = root_of(SECRET)
    shown = repr(root)
    assert root.seal_private.hex()[:8] not in shown
    assert repr(root.seal_private)[2:12] not in shown
    assert root.signing.identity.hex()[:12] in shown


def test_a_new_secret_is_256_bits_from_the_source_it_is_given() -> None:
    assert new_secret(SeededRng("secret")) == SeededRng("secret").bytes(32)


def test_four_letters_of_every_word_are_enough_and_mean_no_other() -> None:
    for word in WORDLIST:
        assert [whole_word(word[:length]) for length in range(4, len(word) + 1)] == [word] * (len(word) - 3)
    assert from_words([word[:4] for word in WORDS]) == SECRET
    assert from_words([word[:4].upper() for word in WORDS]) == SECRET


@pytest.mark.parametrize("typed", ["", "aca", "acadx", "academicx", "academics", "1234", "zzzz"])
def test_less_or_other_than_the_beginning_of_a_word_is_no_word(typed: str) -> None:
    assert whole_word(typed) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, WORD_COUNT - 1), st.sampled_from(WORDLIST), st.binary(min_size=32, max_size=32))
def test_the_checksum_tells_which_one_word_is_wrong(at: int, word: str, secret: bytes) -> None:
    wrong = to_words(secret)
    if wrong[at] == word:
        return
    wrong[at] = word
    assert suspects(wrong) == [at + 1]
    with pytest.raises(KeyWrongError, match="do not fit together") as caught:
        from_words(wrong)
    assert f"it is word {at + 1}:" in caught.value.hint
    assert not any(right in caught.value.hint.split() for right in set(to_words(secret)) - {"word", "wrong", "paper"})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, WORD_COUNT - 1), min_size=2, max_size=2, unique=True), st.randoms(use_true_random=False))
def test_of_two_wrong_words_none_is_accused(places: list[int], random: object) -> None:
    wrong = [*WORDS]
    for at in places:
        wrong[at] = random.choice([word for word in WORDLIST if word != WORDS[at]])  # type: ignore[attr-defined]
    assert suspects(wrong) == []
    with pytest.raises(KeyWrongError) as caught:
        from_words(wrong)
    assert "compare each word" in caught.value.hint
