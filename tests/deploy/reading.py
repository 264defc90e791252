"""What lies in ``deploy/``, as data, and the programs that judge it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.settings import PREFIX, Settings
from tests.service.conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
# gunicorn.conf.py gives the workers this much more than the drain.
GRACE_S = 5
DEFAULTS = Settings()


def manifests(overlay: str) -> list[dict[str, Any]]:
    """The documents that lie in one folder of manifests, kustomization and Helm values aside."""
    files = sorted((DEPLOY / "kubernetes" / overlay).glob("*.yaml"))
    documents = (document for file in files for document in yaml.safe_load_all(file.read_text()))
    return [document for document in documents if "kind" in document and document["kind"] != "Kustomization"]


def manifest(kind: str, overlay: str = "base") -> dict[str, Any]:
    return next(document for document in manifests(overlay) if document["kind"] == kind)


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    return services


def unknown_settings(text: str) -> set[str]:
    """Names with our prefix that are no setting."""
    names = set(re.findall(rf"\b{PREFIX}([A-Z_0-9]+)\b", text))
    return {name for name in names if name.lower() not in Settings.model_fields}


def program(name: str) -> str:
    """Its path; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str | Path, **options: Any) -> str:
    """Output of a program that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Title and expression of every query of the dashboard."""
    dashboard = json.loads((DEPLOY / "grafana" / "forklift.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
