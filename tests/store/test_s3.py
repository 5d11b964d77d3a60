"""The client of S3: what it signs with, what it makes of a server's answers, and that no error is an absence."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web

from replicator.config import BucketAddress, parse_bucket
from replicator.errors import CredentialError, KeyMissingError, KeyWrongError, SpaceError, UsageError
from replicator.store.bucket import BucketError
from replicator.store.s3 import RETRIES, ObstoreBucket, find_keys, open_s3
from tests.s3face import Answer, Face, facing, said

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAFROMENVIRONMENT", "AWS_SECRET_ACCESS_KEY": SECRET}
ADDRESS = BucketAddress(bucket="attic", prefix="friends/", endpoint="http://127.0.0.1:1")


@pytest.fixture(scope="module")
def serving() -> Iterator[Face]:
    with facing() as found:
        yield found


@pytest.fixture
def face(serving: Face, monkeypatch: pytest.MonkeyPatch) -> Face:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    serving.objects.clear()
    serving.asked.clear()
    serving.headers.clear()
    serving.fault = lambda _method, _key: None
    return serving


@pytest.fixture
def bucket(face: Face) -> ObstoreBucket:
    return open_s3(parse_bucket("s3://attic/friends", endpoint=face.endpoint))


def test_all_that_a_store_needs_is_asked_as_servers_expect_it(face: Face, bucket: ObstoreBucket) -> None:
    assert bucket.put("friends/a", b"first", fresh=True)
    assert not bucket.put("friends/a", b"second", fresh=True)
    assert bucket.get("friends/a") == b"first"
    assert bucket.get("friends/a", 1, 3) == b"irs"
    assert bucket.get("friends/a", 1) == b"irst"
    assert (bucket.size("friends/a"), bucket.size("friends/b"), bucket.get("friends/b")) == (5, None, None)
    bucket.copy("friends/a", "friends/b")
    assert [one for page in bucket.pages("friends/", "friends/a") for one in page] == [("friends/b", 5)]
    bucket.delete(["friends/a", "friends/b", "friends/c"])
    assert face.objects == {}
    assert not any("uploads" in key for _, key in face.asked), "one request holds any object"


def test_sizes_of_several_are_asked_for_beside_each_other_and_told_in_order(face: Face) -> None:
    both = threading.Barrier(2)

    class Meeting(ObstoreBucket):
        def size(self, key: str) -> int | None:
            if key in ("friends/0", "friends/1"):
                both.wait(60)
            return super().size(key)

    bucket = Meeting(open_s3(parse_bucket("s3://attic/friends", endpoint=face.endpoint))._client)
    keys = [f"friends/{number}" for number in range(40)]
    face.objects |= {key: bytes(number) for number, key in enumerate(keys) if number % 3}
    assert bucket.sizes(keys) == [number if number % 3 else None for number in range(40)]
    assert sorted(face.asked) == sorted(("HEAD", key) for key in keys)
    assert (bucket.sizes([]), bucket.sizes(keys[4:5])) == ([], [4])


def test_of_several_sizes_one_that_is_not_told_is_an_error(face: Face, bucket: ObstoreBucket) -> None:
    face.fault = lambda _method, key: said("AccessDenied", 403) if key == "friends/5" else None
    with pytest.raises(BucketError, match="Permission denied"):
        bucket.sizes([f"friends/{number}" for number in range(9)])


def test_sixteen_mebibytes_go_in_one_request_that_is_signed_with_its_bytes(face: Face, bucket: ObstoreBucket) -> None:
    data = bytes(16 << 20)
    bucket.put("friends/large", data, fresh=True)
    assert face.asked == [("PUT", "friends/large")]
    [headers] = face.headers
    assert len(headers["x-amz-content-sha256"]) == 64, "the server can see that a byte was changed on its way"
    assert SECRET not in str(headers)
    assert bucket.get("friends/large") == data


@pytest.mark.parametrize("verb", ["get", "size", "list", "put", "copy", "delete"])
def test_a_server_that_is_busy_is_asked_again_and_then_it_is_an_error(
    face: Face, bucket: ObstoreBucket, verb: str
) -> None:
    face.objects["friends/a"] = b"here"
    asks: dict[str, Callable[[], object]] = {
        "get": lambda: bucket.get("friends/a"),
        "size": lambda: bucket.size("friends/a"),
        "list": lambda: list(bucket.pages("friends/")),
        "put": lambda: bucket.put("friends/a", b"more", fresh=False),
        "copy": lambda: bucket.copy("friends/a", "friends/b"),
        "delete": lambda: bucket.delete(["friends/a"]),
    }
    busy = [2]

    def sometimes(_method: str, _key: str) -> Answer:
        busy[0] -= 1
        return said("SlowDown", 503, "try again") if busy[0] >= 0 else None

    face.fault = sometimes
    assert asks[verb]() or verb in ("copy", "delete")
    if verb in ("list", "copy", "delete"):
        return  # the same way out as for the others, and each takes a second
    face.asked.clear()
    face.fault = lambda _method, _key: said("SlowDown", 503, "try again")
    with pytest.raises(BucketError) as caught:
        asks[verb]()
    expected = (
        "Server returned non-2xx status code: 503 Service Unavailable" if verb == "size" else "SlowDown: try again"
    )
    assert caught.value.detail == expected
    assert len(face.asked) == RETRIES + 1
    assert "friends/a" not in str(caught.value), "a log has no names"


@pytest.mark.parametrize(("code", "status"), [("AccessDenied", 403), ("InvalidAccessKeyId", 403), ("Unsigned", 401)])
def test_who_may_not_read_is_told_so_and_not_that_nothing_is_there(
    face: Face, bucket: ObstoreBucket, code: str, status: int
) -> None:
    face.fault = lambda _method, _key: said(code, status)
    for work in (lambda: bucket.get("k"), lambda: bucket.size("k"), lambda: bucket.put("k", b"x", fresh=True)):
        with pytest.raises(BucketError, match="Permission denied"):
            work()


def test_a_bucket_that_is_not_there_lists_nothing_and_says_so(face: Face) -> None:
    other = open_s3(parse_bucket("s3://nowhere/friends", endpoint=face.endpoint))
    with pytest.raises(BucketError):
        list(other.pages("friends/"))
    with pytest.raises(BucketError):
        other.put("friends/a", b"x", fresh=True)


def test_a_body_that_breaks_off_is_an_error(face: Face, bucket: ObstoreBucket) -> None:
    class Broken(web.Response):
        async def write_eof(self, data: bytes = b"") -> None:
            assert self._req is not None
            assert self._req.transport is not None
            self._req.transport.abort()

    def broken(_method: str, _key: str) -> Answer:
        answer = Broken(body=b"half of what was announced")
        answer.content_length = 1000
        return answer

    face.fault = broken
    with pytest.raises(BucketError):
        bucket.get("friends/a")


@pytest.mark.parametrize(("code", "status"), [("QuotaExceeded", 403), ("InsufficientStorage", 507)])
def test_a_full_bucket_is_full(face: Face, bucket: ObstoreBucket, code: str, status: int) -> None:
    face.fault = lambda method, _key: said(code, status) if method == "PUT" else None
    with pytest.raises(SpaceError):
        bucket.put("friends/a", b"x", fresh=True)


def test_nobody_is_there_within_the_time_that_is_allowed(face: Face) -> None:
    with pytest.raises(BucketError):
        open_s3(ADDRESS).size("friends/a")


# keys


def test_keys_come_from_the_credential_then_the_file_then_the_environment(
    tmp_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.path.join(tmp_path, "keys")
    _write(path, "[default]\n# mine\naws_access_key_id = AKIAFROMFILE\nAWS_SECRET_ACCESS_KEY=a=b\n")
    named = BucketAddress(bucket="attic", credentials=path)
    assert find_keys(ADDRESS, ENVIRONMENT).access_key == "AKIAFROMENVIRONMENT"
    assert (find_keys(named, ENVIRONMENT).access_key, find_keys(named, {}).secret_key) == ("AKIAFROMFILE", "a=b")
    _write(os.path.join(tmp_path, "replicator-s3"), f"AWS_ACCESS_KEY_ID=AKIASYSTEMD\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = find_keys(named, ENVIRONMENT)
    assert (found.access_key, found.secret_key) == ("AKIASYSTEMD", SECRET)
    assert SECRET not in repr(found)


def test_no_keys_bad_keys_and_keys_that_others_can_read_are_refused(tmp_path: str) -> None:
    with pytest.raises(KeyMissingError, match="no keys for it") as missing:
        find_keys(ADDRESS, {"AWS_ACCESS_KEY_ID": "AKIA"})
    assert "--s3-credentials" in missing.value.hint
    path = os.path.join(tmp_path, "keys")
    _write(path, f"aws_access_key_id\n{SECRET}\n")
    named = BucketAddress(bucket="attic", credentials=path)
    with pytest.raises(KeyWrongError) as wrong:
        find_keys(named, {})
    assert SECRET not in f"{wrong.value.message} {wrong.value.hint}"
    os.chmod(path, 0o644)
    with pytest.raises(CredentialError, match="others can read"):
        find_keys(named, {})


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o600)


# addresses


def test_addresses_are_read_as_they_are_written() -> None:
    found = parse_bucket("s3://attic/friends/cellar/", endpoint="https://s3.example.org/", region="eu-north-1")
    assert (found.bucket, found.prefix, found.endpoint) == ("attic", "friends/cellar/", "https://s3.example.org")
    assert str(found) == "s3://attic/friends/cellar"
    assert (parse_bucket("s3://attic").prefix, str(parse_bucket("s3://attic/"))) == ("", "s3://attic")


@pytest.mark.parametrize(
    "text", ["s3://", "s3://a", "s3://attic//x", "s3://attic/../x", "s3://attic/a b", "s3://at\ntic", "http://attic/x"]
)
def test_what_is_no_bucket_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no bucket"):
        parse_bucket(text)


@pytest.mark.parametrize("endpoint", ["s3.example.org", "https://", "https://key:secret@s3.example.org", "ftp://x"])
def test_what_is_no_server_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        parse_bucket("s3://attic", endpoint=endpoint)
