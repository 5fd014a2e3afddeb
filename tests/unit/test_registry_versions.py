"""Versions of models: what is saved is what is loaded, and whatever differs is refused by name."""

import hashlib
import json
import pickle
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_models import FEATURES, NOON, TRAINING, Ticking, forge, model, registry_in

from roadcast import __version__
from roadcast.blobs.file import FileBlobs
from roadcast.errors import Conflict, InvalidInput, NotFound, StoreDown
from roadcast.registry.manifest import ModelRefused
from roadcast.registry.registry import Model

PART_FILES = ("net/speed/links.npy", "net/speed/weights.npy", "trees/speed/horizon_1.txt")

DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.floating_dtypes(endianness="?"),
    hnp.complex_number_dtypes(), hnp.datetime64_dtypes(), hnp.timedelta64_dtypes(), hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
)  # fmt: skip
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}(/[a-z0-9][a-z0-9_-]{0,8}){0,2}", fullmatch=True)


@settings(deadline=None, max_examples=60)  # every example waits for the disk
@given(parts=st.dictionaries(NAMES, ARRAYS | ARRAYS.map(np.transpose) | TEXTS, max_size=3))
def test_parts_come_back_in_value_bytes_and_dtype(parts: dict[str, np.ndarray | str]) -> None:
    with TemporaryDirectory() as folder:
        registry = registry_in(Path(folder))
        loaded = registry.load("m", registry.save(Model("m", TRAINING, parts)), FEATURES)
    assert loaded.parts.keys() == parts.keys()
    for name, value in parts.items():
        found = loaded.parts[name]
        if isinstance(value, str):
            assert found == value
        else:
            assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())


def test_a_loaded_model_says_what_it_was_made_for(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    loaded = registry.load("network", registry.save(model()), FEATURES)
    assert (loaded.name, loaded.training) == ("network", TRAINING)


def test_a_store_that_takes_nothing_is_found_out_without_a_model(tmp_path: Path) -> None:
    registry_in(tmp_path).try_saving("network")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").touch()
    with pytest.raises(Conflict, match="lies in a file"):
        registry_in(tmp_path / "file").try_saving("network")


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full is not fuller for it."""
    put, places = FileBlobs.put, iter(range(2))

    def until_full(blobs: FileBlobs, name: str, content: bytes) -> None:
        if next(places, None) is None:
            raise StoreDown("No space left on device.")
        put(blobs, name, content)

    monkeypatch.setattr(FileBlobs, "put", until_full)
    with pytest.raises(StoreDown):
        registry_in(tmp_path).save(model())
    assert next(places, None) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    version = registry_in(tmp_path, Ticking()).save(model())
    folder = tmp_path / "network" / version
    document = (folder / "manifest.json").read_bytes()
    assert version == f"20260302-120000.123-{hashlib.sha256(document).hexdigest()[:12]}"
    contents = {file: (folder / file).read_bytes() for file in PART_FILES}
    assert json.loads(document) == {
        "format": 1,
        "name": "network",
        "created_at": "2026-03-02T12:00:00.123456Z",
        "code_version": __version__,
        "training": {
            "forecaster": "graph_mlp", "features": list(FEATURES), "targets": ["speed"], "horizons": 12,
            "interval_s": 300, "sensors": 3,
            "start": "2026-01-01T00:00:00Z", "end": "2026-03-01T00:00:00Z", "seed": 7,
            "judged_start": "2026-02-22T00:00:00Z", "judged_end": "2026-03-01T00:00:00Z",
            "metrics": {"mae_15": 2.63, "rmse_15": 4.69},
        },
        "parts": {
            file: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for file, content in contents.items()
        },
    }  # fmt: skip
    assert np.load(folder / "net/speed/links.npy").tolist() == [0, 1, 2, 3, 4]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {*PART_FILES, "manifest.json"}


def test_versions_are_in_order_of_time_and_of_one_model(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    assert registry.versions("network") == registry.names() == []
    saved = [registry.save(model(seed)) for seed in range(5)]
    other = registry.save(model(name="network-2"))
    assert registry.versions("network") == saved
    assert registry.versions("network-2") == [other]
    assert registry.names() == ["network", "network-2"]


def test_the_same_at_the_same_moment_is_the_same_version(tmp_path: Path) -> None:
    registry = registry_in(tmp_path, lambda: NOON)
    assert registry.save(model()) == registry.save(model())
    assert registry.save(model(1)) != registry.save(model())
    assert len(registry.versions("network")) == 2


@pytest.mark.parametrize("file", PART_FILES)
def test_a_flipped_byte_in_a_part_is_refused_by_name(tmp_path: Path, file: str) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    path = tmp_path / "network" / version / file
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ModelRefused) as refused:
            registry.load("network", version, FEATURES)
        assert refused.value.file == f"network/{version}/{file}"
        assert refused.value.expected == hashlib.sha256(good).hexdigest()
        assert refused.value.found == f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
        assert all(part in str(refused.value) for part in (file, refused.value.found, refused.value.expected))
    path.write_bytes(good)
    registry.load("network", version, FEATURES)


def test_a_flipped_byte_in_the_manifest_is_refused_by_name(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    path = tmp_path / "network" / version / "manifest.json"
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ModelRefused, match=f"network/{version}/manifest.json: found SHA-256 "):
            registry.manifest("network", version)


@pytest.mark.parametrize("file", PART_FILES)
def test_a_part_that_is_short_long_or_gone_is_refused(tmp_path: Path, file: str) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    path = tmp_path / "network" / version / file
    good = path.read_bytes()
    for bad in (good[:-1], good + b"\0", b""):
        path.write_bytes(bad)
        with pytest.raises(ModelRefused, match=f"{file}: found {len(bad)} bytes, expected {len(good)}"):
            registry.load("network", version, FEATURES)
    path.unlink()
    with pytest.raises(ModelRefused, match=f"{file}: found no such file, expected {len(good)} bytes"):
        registry.load("network", version, FEATURES)


def test_without_a_manifest_there_is_no_version(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    (tmp_path / "network" / version / "manifest.json").unlink()
    assert registry.versions("network") == registry.names() == []
    with pytest.raises(NotFound, match=f"The model network has no version {version}"):
        registry.load("network", version, FEATURES)


@pytest.mark.parametrize("version", ["", "champion", "latest", "../network", "20260302-120000.123"])
def test_what_is_no_version_is_not_found(tmp_path: Path, version: str) -> None:
    registry = registry_in(tmp_path)
    registry.save(model())
    with pytest.raises(NotFound, match="The model network has no version"):
        registry.load("network", version, FEATURES)


@pytest.mark.parametrize(
    ("features", "found", "expected"),
    [
        ((FEATURES[0], "weather"), f"feature 2 '{FEATURES[1]}'", "'weather'"),
        (FEATURES[::-1], f"feature 1 '{FEATURES[0]}'", f"'{FEATURES[1]}'"),
        (FEATURES[:1], "2 features", "1"),
        ((*FEATURES, "weather"), "2 features", "3"),
        ((), "2 features", "0"),
    ],
)
def test_another_feature_schema_is_refused(
    tmp_path: Path, features: tuple[str, ...], found: str, expected: str
) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    with pytest.raises(ModelRefused) as refused:
        registry.load("network", version, features)
    assert (refused.value.file, refused.value.found, refused.value.expected) == (
        f"network/{version}/manifest.json", found, expected,
    )  # fmt: skip


def test_a_newer_format_is_refused_even_if_it_cannot_be_understood(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    saved = registry.save(model())

    def newer(manifest: dict) -> None:
        manifest["format"] = 2
        manifest["training"] = "elsewhere"

    with pytest.raises(ModelRefused, match=r"manifest\.json: found format 2, expected at most 1: it was saved by"):
        registry.load("network", forge(tmp_path, saved, change=newer), FEATURES)


@pytest.mark.parametrize(
    ("key", "value"), [("format", "1"), ("training", {}), ("parts", []), ("created_at", "2026-03-02T12:00:00")]
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, key: str, value: object) -> None:
    registry = registry_in(tmp_path)
    saved = registry.save(model())
    with pytest.raises(ModelRefused, match=rf"manifest.json: found what is no manifest \(.*{key}|field"):
        registry.load("network", forge(tmp_path, saved, change=lambda found: found.update({key: value})), FEATURES)


def test_a_version_of_another_model_is_refused(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    version = registry.save(model())
    (tmp_path / "network").rename(tmp_path / "other")
    with pytest.raises(ModelRefused, match="found the model network, expected other"):
        registry.load("other", version, FEATURES)


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def smuggled(bomb: Bomb) -> dict[str, bytes]:
    in_array, archive = BytesIO(), BytesIO()
    np.save(in_array, np.array([bomb], object), allow_pickle=True)
    np.savez(archive, a=np.arange(3))
    return {"object array": in_array.getvalue(), "bare pickle": pickle.dumps(bomb), "archive": archive.getvalue()}


@pytest.mark.parametrize("kind", ["object array", "bare pickle", "archive"])
def test_a_smuggled_pickle_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    registry = registry_in(tmp_path / "models")
    content = smuggled(Bomb(tmp_path / "trace"))[kind]
    forged = forge(tmp_path / "models", registry.save(model()), files={"net/speed/weights.npy": content})
    with pytest.raises(ModelRefused, match=r"net/speed/weights.npy: found what cannot be read"):
        registry.load("network", forged, FEATURES)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("net/speed/weights.npy", b"", "what cannot be read"),
        ("trees/speed/horizon_1.txt", b"\xff", "what cannot be read"),
        ("code.py", b"print()", "a file of another kind"),
    ],
)
def test_files_that_are_not_what_their_name_says_are_refused(
    tmp_path: Path, file: str, content: bytes, found: str
) -> None:
    registry = registry_in(tmp_path)
    forged = forge(tmp_path, registry.save(model()), files={file: content})
    with pytest.raises(ModelRefused, match=f"{file}: found {found}"):
        registry.load("network", forged, FEATURES)


def test_bytes_behind_an_array_are_refused(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    saved = registry.save(model())
    longer = (tmp_path / "network" / saved / "net/speed/links.npy").read_bytes() + b"\0"
    with pytest.raises(ModelRefused, match="more bytes than the array has"):
        registry.load("network", forge(tmp_path, saved, files={"net/speed/links.npy": longer}), FEATURES)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("a", np.array([{}], object), "part a: expected text, or a plain array .*, not ndarray object"),
        ("a", np.ma.masked_array([1, 2], [True, False]), "part a: .* not MaskedArray int64"),
        ("a", np.zeros(2, [("x", "f4")]), r"part a: .* not ndarray \[\('x', '<f4'\)\]"),
        ("a", [1, 2], "part a: .* not list"),
        ("a", b"text", "part a: .* not bytes"),
        ("a", "x\ud800", r"part a: expected text that UTF-8 can hold, not '\\ud800' at 1"),
        ("a/../b", "x", r"part '\.\.': expected at most 100 of a-z"),
        ("a.npy", "x", r"part 'a\.npy': expected"),
        ("", "x", "part '': expected"),
        ("A", "x", "part 'A': expected"),
    ],
)
def test_parts_that_cannot_be_kept_are_refused_and_nothing_is(
    tmp_path: Path, name: str, value: object, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{reason}"):
        registry_in(tmp_path).save(Model("network", TRAINING, {"good": np.zeros(2), name: value}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": {"mae": float("nan")}}, "metrics mae = nan: expected a finite number"),
        ({"metrics": {"mae": float("inf")}}, "metrics mae = inf: expected a finite number"),
        ({"metrics": {"mae": "low"}}, "manifest: Expected `float`, got `str`"),
        ({"horizons": 0}, r"manifest: Expected `int` >= 1 - at `\$\.training\.horizons`"),
        ({"sensors": -1}, r"manifest: Expected `int` >= 0 - at `\$\.training\.sensors`"),
        ({"start": datetime(2026, 1, 1)}, r"manifest: Expected `datetime` with a timezone .*training\.start"),
    ],
)
def test_facts_that_cannot_be_kept_are_refused_and_nothing_is(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    bad = replace(model(), training=msgspec.structs.replace(TRAINING, **changes))
    with pytest.raises(InvalidInput, match=f"^{reason}"):
        registry_in(tmp_path).save(bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "Network", "a.b", "a" * 101])
def test_a_model_is_called_like_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"^name .*expected at most 100 of a-z"):
        registry_in(tmp_path).save(model(name=name))
    assert list(tmp_path.iterdir()) == []


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    saved = [registry.save(model(seed)) for seed in range(5)]
    other = registry.save(model(name="other"))
    assert registry.prune("network", keep=9) == []
    assert registry.prune("network", keep=2) == saved[:3]
    assert registry.versions("network") == saved[3:]
    assert {path.name for path in (tmp_path / "network").iterdir()} == set(saved[3:])
    registry.load("network", saved[3], FEATURES)
    registry.load("other", other, FEATURES)
    with pytest.raises(InvalidInput, match="keep = 0: expected at least 1"):
        registry.prune("network", keep=0)


def test_prune_removes_what_a_crash_left_a_day_ago_and_not_what_is_being_saved(tmp_path: Path) -> None:
    clock = Ticking()
    registry = registry_in(tmp_path, clock)
    half, whole = registry.save(model(0)), registry.save(model(1))
    (tmp_path / "network" / half / "manifest.json").unlink()
    clock.at = NOON + timedelta(hours=23)
    assert registry.prune("network", keep=1) == []
    assert (tmp_path / "network" / half).exists()
    clock.at = NOON + timedelta(hours=25)
    assert registry.prune("network", keep=1) == [half]
    assert not (tmp_path / "network" / half).exists()
    assert registry.versions("network") == [whole]


def test_prune_takes_the_manifest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_in(tmp_path)
    old, _ = registry.save(model(0)), registry.save(model(1))
    unlink = Path.unlink

    def fail_after_the_manifest(path: Path, missing_ok: bool = False) -> None:
        if path.suffix != ".json":
            raise OSError(5, "Input/output error")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail_after_the_manifest)
    with pytest.raises(Exception, match="Input/output error"):
        registry.prune("network", keep=1)
    assert old not in registry.versions("network")
    assert (tmp_path / "network" / old / PART_FILES[0]).exists()
