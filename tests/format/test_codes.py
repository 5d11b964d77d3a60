import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import KeyWrongError
from replicator.format.codes import CodeKind, code_kind, read_code, write_code

KINDS: tuple[CodeKind, ...] = ("invite", "request", "renewal", "grant")
CODE = write_code("invite", b"some content of an invite")


@given(kind=st.sampled_from(KINDS), content=st.binary(min_size=1, max_size=300))
def test_a_code_gives_its_content_back(kind: CodeKind, content: bytes) -> None:
    code = write_code(kind, content)
    assert code_kind(code) == kind
    assert read_code(kind, code) == content


def test_a_code_is_lower_case_letters_digits_and_hyphens_behind_its_kind() -> None:
    assert CODE.startswith("rpl-invite-")
    assert set(CODE.removeprefix("rpl-invite-")) <= set("abcdefghijklmnopqrstuvwxyz234567")


def test_case_hyphens_spaces_and_line_ends_do_not_matter() -> None:
    body = CODE.removeprefix("rpl-invite-")
    spread = "rpl-invite-" + "-".join(body[at : at + 4] for at in range(0, len(body), 4))
    assert read_code("invite", f"  {spread.upper()[:30]}\n {spread[30:]}\r\n") == b"some content of an invite"


def test_every_single_wrong_letter_is_found() -> None:
    start = len("rpl-invite-")
    for at in range(start, len(CODE)):
        for letter in "a7":
            if CODE[at] == letter:
                continue
            try:
                found = read_code("invite", CODE[:at] + letter + CODE[at + 1 :])
            except KeyWrongError:
                continue
            # The last letter carries bits beyond the last byte; they mean nothing.
            assert at == len(CODE) - 1
            assert found == b"some content of an invite"


def test_a_code_cut_short_anywhere_is_damaged() -> None:
    for end in range(len("rpl-invite-"), len(CODE)):
        with pytest.raises(KeyWrongError, match="damaged or incomplete") as caught:
            read_code("invite", CODE[:end])
        assert "copy it again" in caught.value.hint


def test_a_code_of_another_kind_is_named() -> None:
    with pytest.raises(KeyWrongError, match="kind 'invite'; one of kind 'grant' is needed"):
        read_code("grant", CODE)


def test_relabelling_a_code_does_not_change_its_kind() -> None:
    with pytest.raises(KeyWrongError, match="damaged"):
        read_code("grant", CODE.replace("rpl-invite-", "rpl-grant-"))


@pytest.mark.parametrize("text", ["", "hello", "rpl-", "rpl-invit-aaaa", "rplinvite-aaaa", "🙂"])
def test_what_is_no_code_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(KeyWrongError, match="not a replicator code") as caught:
        code_kind(text)
    assert "rpl-invite-" in caught.value.hint


@pytest.mark.parametrize("body", ["", "a", "aaaaaaaa", "é", "1111", "====", "rpl-invite-"])
def test_nonsense_behind_a_kind_is_damaged(body: str) -> None:
    with pytest.raises(KeyWrongError, match="damaged"):
        read_code("invite", "rpl-invite-" + body)
