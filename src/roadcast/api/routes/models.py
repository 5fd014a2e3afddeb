"""Trained models: their versions, what each is worth, and how they came to serve."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import Response
from typing_extensions import TypedDict

from roadcast.api.answers import answer
from roadcast.api.deps import Context
from roadcast.api.problems import RESPONSES
from roadcast.domain.model import MODEL
from roadcast.errors import NotFound, StoreDown
from roadcast.registry.aliases import Change
from roadcast.registry.manifest import ModelRefused
from roadcast.registry.registry import Registry

router = APIRouter(prefix="/api/models", tags=["models"], responses=RESPONSES)


class VersionDocument(TypedDict):
    """One version. `metrics` are of days that it had not learnt from; speeds in mph.

    Of one that cannot be read only `refused` is told, which says why.
    """

    version: str
    champion: bool
    refused: str | None
    forecaster: str | None
    created_at: datetime | None
    learnt_from: datetime | None
    learnt_until: datetime | None
    targets: list[str]
    sensors: int | None
    metrics: Mapping[str, float]


class ChangeDocument(TypedDict):
    """From `effective_at`, on the feed's clock, `version` serves, or none; `evidence` says why."""

    action: str
    version: str | None
    effective_at: datetime
    recorded_at: datetime
    evidence: Mapping[str, float | str]


class ModelsDocument(TypedDict):
    """The champion is the version in force; what serves is the forecaster that errs least, see `predictions/latest`."""

    model: str
    champion: str | None
    versions: list[VersionDocument]
    changes: list[ChangeDocument]


@router.get("", operation_id="get_models", response_model=ModelsDocument)
async def models(context: Context) -> Response:
    """The versions of the trained model, the newest first, and every promotion and rollback, the newest first."""
    try:
        return answer(await asyncio.to_thread(_models, context.registry, context.clock.now()))
    except ModelRefused as error:  # a change of the alias is damaged: nobody knows who serves
        raise StoreDown(error.message, remedy=error.remedy) from error


def _models(registry: Registry, now: datetime) -> ModelsDocument:
    champion = registry.named(MODEL, at=now)
    return {
        "model": MODEL,
        "champion": champion,
        "versions": [_version(registry, version, champion) for version in reversed(registry.versions(MODEL))],
        "changes": [_change(change) for change in reversed(registry.history(MODEL))],
    }


def _version(registry: Registry, version: str, champion: str | None) -> VersionDocument:
    try:
        manifest, refused = registry.manifest(MODEL, version), None
    except (ModelRefused, NotFound) as error:  # one that was pruned meanwhile is as good as refused
        manifest, refused = None, error.message
    training = manifest.training if manifest else None
    return {
        "version": version,
        "champion": version == champion,
        "refused": refused,
        "forecaster": training.forecaster if training else None,
        "created_at": manifest.created_at if manifest else None,
        "learnt_from": training.start if training else None,
        "learnt_until": training.end if training else None,
        "targets": list(training.targets) if training else [],
        "sensors": training.sensors if training else None,
        "metrics": training.metrics if training else {},
    }


def _change(change: Change) -> ChangeDocument:
    return {
        "action": change.action,
        "version": change.version,
        "effective_at": change.effective_at,
        "recorded_at": change.recorded_at,
        "evidence": change.evidence,
    }
