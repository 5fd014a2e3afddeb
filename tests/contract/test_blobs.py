"""What every store of bytes promises. Each implementation passes the same suite."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadcast.blobs.file import FileBlobs
from roadcast.blobs.store import MAX_LENGTH, Blobs
from roadcast.errors import InvalidInput, NotFound

MakeBlobs = Callable[[Path], Blobs]

pytestmark = pytest.mark.parametrize("make_blobs", [FileBlobs], ids=["file"])


@pytest.fixture
def blobs(make_blobs: MakeBlobs, tmp_path: Path) -> Blobs:
    return make_blobs(tmp_path / "store")


@pytest.mark.parametrize("content", [b"", b"text", bytes(range(256)) * 20_000], ids=len)
def test_what_is_put_is_got_by_whoever_opens_the_store(make_blobs: MakeBlobs, tmp_path: Path, content: bytes) -> None:
    make_blobs(tmp_path / "store").put("a/b.c/d_e-f", content)
    assert make_blobs(tmp_path / "store").get("a/b.c/d_e-f") == content


def test_a_put_replaces(blobs: Blobs) -> None:
    blobs.put("a", b"a longer one")
    blobs.put("a", b"new")
    assert blobs.get("a") == b"new"


def test_a_create_succeeds_once(blobs: Blobs) -> None:
    assert blobs.create("a/b", b"first")
    assert not blobs.create("a/b", b"second")
    assert blobs.get("a/b") == b"first"
    blobs.delete("a/b")
    assert blobs.create("a/b", b"third")


def test_of_many_who_create_at_once_one_succeeds(blobs: Blobs) -> None:
    with ThreadPoolExecutor(8) as threads:
        for turn in range(20):
            won = list(threads.map(lambda i, turn=turn: blobs.create(f"a/{turn}", bytes([i])), range(8)))
            assert won.count(True) == 1
            assert blobs.get(f"a/{turn}") == bytes([won.index(True)])


def test_what_is_not_there(blobs: Blobs) -> None:
    with pytest.raises(NotFound, match="a/b"):
        blobs.get("a/b")
    assert not blobs.exists("a/b")
    assert blobs.names() == []
    assert blobs.names("a") == []
    blobs.delete("a/b")


def test_names_are_those_of_a_folder_and_sorted(blobs: Blobs) -> None:
    for name in ("b/2", "b/1/x", "bb/1", "a", "b/10"):
        blobs.put(name, b"")
    assert blobs.names("b") == ["b/1/x", "b/10", "b/2"]
    assert blobs.names() == ["a", "b/1/x", "b/10", "b/2", "bb/1"]
    assert blobs.names("a") == []


def test_what_is_deleted_is_gone_and_nothing_else(blobs: Blobs) -> None:
    blobs.put("a/b/c", b"1")
    blobs.put("a/d", b"2")
    blobs.delete("a/b/c")
    assert not blobs.exists("a/b/c")
    assert blobs.names() == ["a/d"]
    blobs.delete("a/b/c")
    assert blobs.get("a/d") == b"2"


def test_a_folder_is_no_blob(blobs: Blobs) -> None:
    blobs.put("a/b", b"1")
    assert not blobs.exists("a")
    with pytest.raises(NotFound):
        blobs.get("a")
    blobs.delete("a")
    assert blobs.get("a/b") == b"1"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "a/..", "/a", "a/", "a//b", ".a", "a/.b", "A", "a b", "a\\b", "a\n", "a\0", "é",
     "a:b", "~", "a" * 129, "/".join(["a" * 100] * 6)],
)  # fmt: skip
def test_names_that_no_store_could_keep_are_refused_by_every_call(blobs: Blobs, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: blobs.put(name, b""),
        lambda: blobs.create(name, b""),
        lambda: blobs.get(name),
        lambda: blobs.exists(name),
        lambda: blobs.delete(name),
        *([lambda: blobs.names(name)] if name else []),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"^blob name .*expected parts of a-z") as refused:
            call()
        assert refused.value.errors[0].value == name


def test_the_longest_name_can_be_kept(blobs: Blobs) -> None:
    name = "/".join(["a" * 127] * 4)[:MAX_LENGTH]
    blobs.put(name, b"1")
    assert blobs.get(name) == b"1"


def test_who_reads_while_others_write_sees_one_whole_content(blobs: Blobs) -> None:
    contents = [letter * 1_000_000 for letter in (b"a", b"b")]
    blobs.put("x/y", contents[0])
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(lambda: [blobs.put("x/y", contents[i % 2]) for i in range(60)])
        seen = {blobs.get("x/y")}
        while not writing.done():
            seen.add(blobs.get("x/y"))
            assert blobs.names() == ["x/y"]
        writing.result()
    assert seen <= set(contents)


def test_a_folder_that_is_emptied_takes_nothing_with_it(blobs: Blobs) -> None:
    def write() -> None:
        for _ in range(200):
            blobs.put("a/b/mine", b"1")
            assert blobs.get("a/b/mine") == b"1"
            blobs.delete("a/b/mine")

    def come_and_go() -> None:
        for _ in range(200):
            blobs.put("a/b/yours", b"2")
            blobs.delete("a/b/yours")

    with ThreadPoolExecutor(2) as threads:
        for work in (threads.submit(write), threads.submit(come_and_go)):
            work.result()
    assert blobs.names() == []


NAMES = ("a", "b/c", "b/d", "b/e/f")
STEPS = st.tuples(st.sampled_from(["put", "create", "delete"]), st.sampled_from(NAMES), st.binary(max_size=3))


@settings(deadline=None, max_examples=30)  # every step waits for the disk
@given(steps=st.lists(STEPS, max_size=12))
def test_it_does_what_a_dictionary_does(make_blobs: MakeBlobs, steps: list[tuple[str, str, bytes]]) -> None:
    with TemporaryDirectory() as folder:
        blobs, expected = make_blobs(Path(folder) / "store"), dict[str, bytes]()
        for step, name, content in steps:
            if step == "put":
                blobs.put(name, content)
                expected[name] = content
            elif step == "create":
                assert blobs.create(name, content) == (name not in expected)
                expected.setdefault(name, content)
            else:
                blobs.delete(name)
                expected.pop(name, None)
            assert {name: blobs.get(name) for name in blobs.names()} == expected
            assert [blobs.exists(name) for name in NAMES] == [name in expected for name in NAMES]
