"""What people call a snapshot."""

import datetime

import pytest

from replicator.engine.naming import Label, check_dataset, choose
from replicator.errors import NotFoundError, UsageError
from tests.fakes import NS


def label(start: str, dataset: str, when: str) -> Label:
    moment = datetime.datetime.fromisoformat(when).replace(tzinfo=datetime.UTC)
    return Label(id=start.ljust(64, "0"), dataset=dataset, created_ns=int(moment.timestamp()) * NS)


LABELS = [
    label("aa1", "docs", "2026-11-15T01:00"),
    label("aa2", "docs", "2026-11-17T00:00"),
    label("b01", "photos", "2026-11-17T01:00"),
    label("c01", "docs", "2026-11-17T23:59"),
    label("d01", "odd@name", "2026-11-18T00:00"),
    label("e01", "latest", "2026-11-18T01:00"),
    label("f01", "photos", "2026-11-20T01:00"),
]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("latest", 6),
        ("latest:docs", 3),
        ("latest:photos", 6),
        ("latest:latest", 5),
        ("latest:odd@name", 4),
        ("latest@2026-11-18", 5),
        ("docs@2026-11-17", 3),
        ("docs@2026-11-15", 0),
        ("odd@name@2026-11-18", 4),
        ("aa1", 0),
        ("AA2", 1),
        ("b", 2),
        ("c01" + "0" * 61, 3),
    ],
)
def test_each_form_means_one_snapshot(text: str, place: int) -> None:
    assert choose(LABELS, text) == place


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            "a",
            "more than one snapshot has an id that begins with 'a'",
            "aa1000000000 (docs of 2026-11-15), aa2000000000",
        ),
        ("aa3", "no snapshot has an id", "`snapshots` lists them"),
        ("docs", "no snapshot has an id", "latest:docs"),
        ("c01" + "0" * 62, "no snapshot has an id", ""),
        ("latest:nope", "no snapshot of dataset 'nope'", "there are: docs, latest, odd@name, photos"),
        ("latest:", "no snapshot of dataset ''", "there are: docs"),
        ("nope@2026-11-17", "no snapshot of dataset 'nope'", "there are: docs"),
        ("docs@2026-11-16", "no snapshot of dataset 'docs' on 2026-11-16", "docs@2026-11-15, docs@2026-11-17"),
        ("docs@2026-11-14", "no snapshot of dataset 'docs' on 2026-11-14", "the nearest: docs@2026-11-15"),
        ("docs@2026-12-01", "no snapshot of dataset 'docs' on 2026-12-01", "the nearest: docs@2026-11-17"),
    ],
)
def test_what_means_none_or_several_says_which_there_are(text: str, said: str, hint: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        choose(LABELS, text)
    assert caught.value.message.startswith(said)
    assert hint in caught.value.hint


def test_of_many_ids_a_few_are_named() -> None:
    labels = [label(f"a{number:02}", "docs", "2026-11-15") for number in range(9)]
    with pytest.raises(NotFoundError) as caught:
        choose(labels, "a")
    assert caught.value.hint.endswith("a04000000000 (docs of 2026-11-15) and 4 more")


def test_a_prefix_of_several_is_never_the_first_of_them() -> None:
    assert choose(LABELS[:1], "a") == 0
    with pytest.raises(NotFoundError):
        choose(LABELS[:2], "a")


@pytest.mark.parametrize("text", ["", "docs@", "docs@yesterday", "docs@2026-13-01", "@"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    for labels in ([], LABELS[:1], LABELS):
        with pytest.raises(UsageError):
            choose(labels, text)


def test_without_snapshots_every_name_says_so() -> None:
    for text in ("latest", "aa", "latest:docs", "docs@2026-11-17"):
        with pytest.raises(NotFoundError, match="there are no snapshots yet"):
            choose([], text)


def test_names_that_cannot_be_read_are_not_named() -> None:
    sealed = [label("aa1", "", "2026-11-15"), label("aa2", "", "2026-11-15")]
    assert choose(sealed, "latest") == 1
    with pytest.raises(NotFoundError) as caught:
        choose(sealed, "latest:docs")
    assert caught.value.hint == ""
    with pytest.raises(NotFoundError, match="more than one") as caught:
        choose(sealed, "aa")
    assert "(2026-11-15)" in caught.value.hint


def test_a_dataset_with_snapshots_passes() -> None:
    check_dataset(LABELS, "photos")
    with pytest.raises(NotFoundError, match="'nope'"):
        check_dataset(LABELS, "nope")
