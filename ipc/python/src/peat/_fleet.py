"""Fleet reads: documents of any writer as platforms and deployments."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from ._types import Change, FleetDeployment, FleetPlatform, Platform

T = TypeVar("T", FleetPlatform, FleetDeployment)

_DERIVED = frozenset(("id", "json", "liveness", "via", "age"))


def platforms(documents: Iterable[Change], typed: Iterable[Platform]) -> list[FleetPlatform]:
    """The documents of `platforms`, by id, with what the node says of their liveness."""
    known = {platform.id: platform for platform in typed}
    found = []
    for document in sorted(documents, key=lambda change: change.id):
        platform = _loosely(FleetPlatform(document.id, json=document.json))
        lively = known.get(document.id)
        if lively is not None:
            age = lively.age_ms / 1000
            platform = dataclasses.replace(platform, liveness=lively.liveness, via=lively.via, age=age)
        found.append(dataclasses.replace(platform, agent_id=platform.agent_id or document.id))
    return found


def deployments(documents: Iterable[Change]) -> list[FleetDeployment]:
    """The documents of `deployments`, by id."""
    found = []
    for document in sorted(documents, key=lambda change: change.id):
        deployment = _loosely(FleetDeployment(document.id, json=document.json))
        agent, _, name = document.id.partition(":")
        agent, name = deployment.agent_id or agent, deployment.package or name
        found.append(dataclasses.replace(deployment, agent_id=agent, package=name))
    return found


def _loosely(empty: T) -> T:
    """Fills the fields that have the type they should have, and takes a number for text, as enums come: what one writer wrote
    must not hide the rest of a fleet."""
    try:
        document = json.loads(empty.json)
    except ValueError:
        return empty
    if not isinstance(document, dict):
        return empty
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(empty):
        value = document.get(field.name)
        if field.name in _DERIVED or value is None:
            continue
        default = getattr(empty, field.name)
        if isinstance(default, str):
            if isinstance(value, (str, int, float)):
                fields[field.name] = value if isinstance(value, str) else json.dumps(value)
        elif isinstance(default, list):
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                fields[field.name] = value
        elif isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values()):
            fields[field.name] = value
    return dataclasses.replace(empty, **fields)
