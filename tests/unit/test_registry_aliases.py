"""Which version an alias names, at which event time, and how it got there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from registry_models import FEATURES, NOON, Ticking, model, registry_in

from roadcast.blobs.file import FileBlobs
from roadcast.errors import Conflict, InvalidInput, NotFound, Unavailable
from roadcast.registry.aliases import Action, Alias
from roadcast.registry.manifest import ModelRefused
from roadcast.registry.registry import Registry

EVIDENCE = {"rmse": 4.69, "champion_rmse": 4.9, "test_days": 14, "against": "profile"}


def hours(count: float) -> datetime:
    return NOON + timedelta(hours=count)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_in(tmp_path)


@pytest.fixture
def versions(registry: Registry) -> list[str]:
    return [registry.save(model(seed)) for seed in range(4)]


def test_an_alias_names_nothing_before_a_promotion(registry: Registry, versions: list[str]) -> None:
    assert registry.named("network") is None
    assert registry.history("network") == []
    assert registry.named("unheard-of", Alias.CHALLENGER) is None


def test_a_promotion_is_recorded_with_its_evidence(registry: Registry, versions: list[str]) -> None:
    made = registry.promote("network", versions[1], hours(5), EVIDENCE)
    assert registry.history("network") == [made]
    assert (made.action, made.version, made.effective_at) == (Action.PROMOTED, versions[1], hours(5))
    assert made.evidence == EVIDENCE
    assert NOON < made.recorded_at < hours(1)
    assert registry.named("network") == versions[1]


def test_a_change_is_a_readable_file_of_its_own(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    registry.promote("network", versions[0], hours(1), EVIDENCE)
    first = (tmp_path / "network/champion/000001.json").read_text()
    registry.promote("network", versions[1], hours(2), {})
    assert (tmp_path / "network/champion/000001.json").read_text() == first
    assert '"version": "' + versions[0] in first
    assert '"effective_at": "2026-03-02T13:00:00.123456Z"' in first
    assert {path.name for path in (tmp_path / "network/champion").iterdir()} == {"000001.json", "000002.json"}


def test_a_replay_finds_who_was_named_then(registry: Registry, versions: list[str]) -> None:
    a, b, c, _ = versions
    registry.promote("network", a, hours(10), {})
    registry.promote("network", b, hours(20), {})
    registry.rollback("network", b, hours(30), {})
    registry.promote("network", c, hours(40), {})
    expected = {9.9: None, 10: a, 19.9: a, 20: b, 29.9: b, 30: a, 39.9: a, 40: c, 1000: c}
    assert {at: registry.named("network", at=hours(at)) for at in expected} == expected


def test_what_is_recorded_later_decides_where_event_times_go_back(registry: Registry, versions: list[str]) -> None:
    a, b, *_ = versions
    registry.promote("network", a, hours(20), {})
    registry.promote("network", b, hours(10), {})
    assert [registry.named("network", at=hours(at)) for at in (5, 15, 25)] == [None, b, b]


def test_a_promotion_may_be_taken_back_before_it_holds(registry: Registry, versions: list[str]) -> None:
    a, b, *_ = versions
    registry.promote("network", a, hours(0), {})
    registry.promote("network", b, hours(20), {})
    registry.rollback("network", b, hours(10), {})
    assert {registry.named("network", at=hours(at)) for at in (0, 10, 15, 20, 25)} == {a}


def test_rollbacks_go_back_step_by_step(registry: Registry, versions: list[str]) -> None:
    a, b, c, d = versions
    for version in (a, b, c):
        registry.promote("network", version, hours(1), {})
    taken_back = registry.rollback("network", c, hours(2), {"rmse": 9.0})
    assert (taken_back.action, taken_back.version, taken_back.evidence) == (Action.ROLLED_BACK, b, {"rmse": 9.0})
    registry.promote("network", d, hours(3), {})
    assert registry.rollback("network", d, hours(4), {}).version == b
    assert registry.rollback("network", b, hours(5), {}).version == a
    assert registry.rollback("network", a, hours(6), {}).version is None
    assert [change.version for change in registry.history("network")] == [a, b, c, b, d, b, a, None]
    assert [registry.named("network", at=hours(at)) for at in (0, 5, 6)] == [None, a, None]
    with pytest.raises(Conflict, match=f"^{a} cannot be rolled back: nothing is named now"):
        registry.rollback("network", a, hours(7), {})
    registry.promote("network", a, hours(7), {})
    assert registry.named("network") == a


def test_a_version_that_comes_back_is_a_step_of_its_own(registry: Registry, versions: list[str]) -> None:
    a, b, *_ = versions
    for version in (a, b, a):
        registry.promote("network", version, hours(1), {})
    assert registry.rollback("network", a, hours(2), {}).version == b
    assert registry.rollback("network", b, hours(3), {}).version == a


def test_only_what_is_named_now_can_be_rolled_back(registry: Registry, versions: list[str]) -> None:
    a, b, c, _ = versions
    with pytest.raises(Conflict, match=f"^{a} cannot be rolled back: nothing is named now"):
        registry.rollback("network", a, hours(1), {})
    for version in (a, b, c):
        registry.promote("network", version, hours(1), {})
    registry.rollback("network", c, hours(2), {})
    with pytest.raises(Conflict, match=f"^{c} cannot be rolled back: {b} is named now"):
        registry.rollback("network", c, hours(2), {})
    assert registry.named("network") == b


def test_a_change_that_is_missing_is_told_with_a_remedy_that_helps(
    registry: Registry, versions: list[str], tmp_path: Path
) -> None:
    for version in versions[:3]:
        registry.promote("network", version, hours(1), {})
    files = sorted(tmp_path.rglob("champion/*.json"))
    files[1].unlink()
    with pytest.raises(ModelRefused) as refused:
        registry.named("network")
    assert refused.value.remedy is not None
    assert refused.value.remedy.startswith("Restore the file from a backup; or remove it, and those with higher")
    files[2].unlink()
    assert registry.named("network") == versions[0]


def test_a_promotion_that_changes_nothing_is_refused(registry: Registry, versions: list[str]) -> None:
    registry.promote("network", versions[0], hours(5), {})
    for at in (5, 6):
        with pytest.raises(Conflict, match="is named already, since 2026-03-02T17:00:00"):
            registry.promote("network", versions[0], hours(at), {})
    registry.promote("network", versions[0], hours(4), {})
    assert registry.named("network", at=hours(4.5)) == versions[0]
    assert registry.rollback("network", versions[0], hours(6), {}).version is None


def test_aliases_and_models_have_histories_of_their_own(registry: Registry, versions: list[str]) -> None:
    other = registry.save(model(name="other"))
    registry.promote("network", versions[0], hours(1), {})
    registry.promote("network", versions[1], hours(1), {}, Alias.CHALLENGER)
    registry.promote("other", other, hours(1), {})
    assert registry.named("network") == versions[0]
    assert registry.named("network", Alias.CHALLENGER) == versions[1]
    assert registry.named("other", Alias.CHALLENGER) is None
    registry.promote("network", versions[2], hours(2), {}, Alias.CHALLENGER)
    assert registry.rollback("network", versions[2], hours(3), {}, Alias.CHALLENGER).version == versions[1]
    assert len(registry.history("network")) == 1


def test_only_what_can_be_loaded_is_named(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    a, b, c, _ = versions
    with pytest.raises(NotFound, match="no version 20260302"):
        registry.promote("network", a[:-1] + "x", hours(1), {})
    registry.promote("network", a, hours(1), {})
    registry.promote("network", b, hours(2), {})
    for damaged in (a, c):
        (tmp_path / "network" / damaged / "net/speed/links.npy").write_bytes(b"")
    with pytest.raises(ModelRefused, match=f"{c}/net/speed/links.npy"):
        registry.promote("network", c, hours(3), {})
    with pytest.raises(ModelRefused, match=f"{a}/net/speed/links.npy"):
        registry.rollback("network", b, hours(3), {})
    assert len(registry.history("network")) == 2
    assert registry.named("network") == b


@pytest.mark.parametrize(
    ("at", "evidence", "reason"),
    [
        (hours(1), {"mae": float("nan")}, "evidence mae = nan: expected a finite number"),
        (hours(1), {"mae": None}, "change of an alias: Expected"),
        (datetime(2026, 3, 2), {}, "change of an alias: Expected `datetime` with a timezone"),
    ],
)
def test_a_change_that_cannot_be_kept_is_refused(
    registry: Registry, versions: list[str], at: datetime, evidence: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{reason}"):
        registry.promote("network", versions[0], at, evidence)
    assert registry.history("network") == []


def test_a_damaged_history_is_refused_by_name(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    for version in versions[:3]:
        registry.promote("network", version, hours(1), {})
    middle = tmp_path / "network/champion/000002.json"
    good = middle.read_bytes()
    for bad in (b"", good[:-5], b"[]", b"\xff", good.replace(b"promoted", b"demoted!")):
        middle.write_bytes(bad)
        with pytest.raises(ModelRefused, match=r"network/champion/000002\.json: found what cannot be read"):
            registry.named("network")
    middle.unlink()
    for ask in (registry.named, registry.history, lambda name: registry.prune(name, keep=1)):
        with pytest.raises(ModelRefused, match=r"network/champion/000002\.json: found no such file"):
            ask("network")
    assert registry.versions("network") == versions


def test_strange_files_beside_the_changes_change_nothing(
    registry: Registry, versions: list[str], tmp_path: Path
) -> None:
    registry.promote("network", versions[0], hours(1), {})
    for stranger in ("zz.json", "000009.json.bak", "notes"):
        (tmp_path / "network/champion" / stranger).write_text("{}")
    registry.promote("network", versions[1], hours(1), {})
    assert [change.version for change in registry.history("network")] == versions[:2]


def test_prune_keeps_what_is_named_and_what_a_rollback_needs(registry: Registry, tmp_path: Path) -> None:
    saved = [registry.save(model(seed)) for seed in range(8)]
    for version in saved[:3]:
        registry.promote("network", version, hours(1), {})
    registry.promote("network", saved[4], hours(1), {}, Alias.CHALLENGER)
    assert registry.prune("network", keep=1) == [saved[0], saved[3], saved[5], saved[6]]
    assert registry.rollback("network", saved[2], hours(2), {}).version == saved[1]
    assert registry.prune("network", keep=1) == [saved[2]]
    with pytest.raises(NotFound, match=saved[0]):
        registry.rollback("network", saved[1], hours(3), {})
    for version in (saved[1], saved[4], saved[7]):
        registry.load("network", version, FEATURES)


class Contended(FileBlobs):
    """A store in which others are always faster: before each change of ours there is one of theirs."""

    def __init__(self, root: Path, rivals: int) -> None:
        super().__init__(root)
        self.rivals = rivals

    def create(self, name: str, content: bytes) -> bool:
        if self.rivals:
            self.rivals -= 1
            super().create(name, self.get("network/champion/000001.json"))
        return super().create(name, content)


def test_who_was_slower_goes_after_the_others(registry: Registry, versions: list[str], tmp_path: Path) -> None:
    registry.promote("network", versions[0], hours(1), {})
    registry_of = lambda rivals: Registry(Contended(tmp_path, rivals), Ticking(datetime(2026, 4, 1, tzinfo=UTC)))  # noqa: E731
    registry_of(3).promote("network", versions[1], hours(2), {})
    assert [change.version for change in registry.history("network")] == [versions[0]] * 4 + [versions[1]]
    with pytest.raises(Unavailable, match="The alias champion of network is changed by others all the time"):
        registry_of(-1).promote("network", versions[2], hours(2), {})
