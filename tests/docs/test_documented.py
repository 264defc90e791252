"""Each setting, route, metric, error code, start failure and warning stands on the page where it is looked for."""

from __future__ import annotations

import re

import pytest

from app.core.metrics import Metrics
from app.core.settings import PREFIX, Settings
from app.http.application.factory import create_app
from app.serve.board import board_metrics
from app.serve.board.board_metrics import BoardCollector
from app.serve.board.slot_board import SlotBoard
from app.serve.registry.registration import Registration
from tests.contract.doubles import World
from tests.docs.source import SHORTEST_FRAGMENT, error_codes, forget, log_events, start_failures, texts
from tools.pages import REPOSITORY, markdown_files


@pytest.fixture(scope="module", autouse=True)
def forgotten_source():
    yield
    forget()


def page(name: str) -> str:
    return (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_in_the_configuration_reference(name):
    assert f"| `{PREFIX}{name.upper()}` |" in page("configuration")


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_page_names_a_setting_that_does_not_exist(path):
    named = set(re.findall(rf"\b{PREFIX}([A-Z0-9_]*[A-Z0-9])\b", path.read_text(encoding="utf-8")))
    assert named <= {name.upper() for name in Settings.model_fields}


@pytest.fixture
def rules():
    world = World()
    try:
        return [rule.rule for rule in create_app(world.context).url_map.iter_rules()]
    finally:
        world.inference.stop()


def test_each_route_is_in_the_api_page(rules):
    text = page("api")
    assert len(rules) >= 16
    assert not [rule for rule in rules if not re.search(rf"[`U ]{written(rule)}(?![\w/-])", text)]


def written(rule: str) -> str:
    """A pattern for ``/v1/models/<path:name>`` as a page writes it."""
    return re.sub(r"<[^>]*>", "<id>", rule) if "<" in rule else re.escape(rule)


@pytest.fixture
def metric_names(monkeypatch):
    """As Prometheus sees them: counters end in ``_total``; the GPU's are there where a GPU is."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setattr(board_metrics, "gpu_memory_bytes", lambda labels: dict.fromkeys(labels, (1, 2)))
    families = [*Metrics().source().collect(), *BoardCollector(SlotBoard([("0",)]), Registration()).collect()]
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_each_metric_is_in_the_operations_page(metric_names):
    assert len(metric_names) >= 15
    assert not [name for name in metric_names if f"| `{name}` |" not in page("operations")]


def test_the_operations_page_names_no_metric_that_does_not_exist(metric_names):
    named = set(re.findall(r"\bforklift_[a-z0-9_]+\b", page("operations")))
    suffixes = ("", "_bucket", "_sum", "_count")
    assert named - {"forklift_serve"} <= {name + suffix for name in metric_names for suffix in suffixes}


@pytest.mark.parametrize("name", ["api", "operations"])
def test_each_error_code_is_documented(name):
    codes = error_codes()
    assert {"overloaded", "headers_too_large", "https_required", "internal_error"} <= codes
    assert not [code for code in codes if f"`{code}`" not in page(name)]


def test_each_start_failure_is_in_the_operations_page():
    text = " ".join(page("operations").split())
    missing = {
        place: lacking
        for place, parts in start_failures().items()
        if (lacking := [part for part in parts if " ".join(part.split()) not in text])
    }
    assert len(start_failures()) > 50
    assert missing == {}, "docs/operations.md, What stops a start, lacks their lines"


def test_no_start_failure_is_documented_that_does_not_exist():
    section = page("operations").split("## What stops a start")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    fragments = {part.strip(" :;,") for span in spans for part in re.split(r"\.\.\.", span)}
    known = texts()
    assert len(cells) > 20
    assert not [
        part for part in fragments if len(part) >= SHORTEST_FRAGMENT and not any(part in text for text in known)
    ]


def test_each_warning_and_error_of_the_log_is_in_the_operations_page():
    events = log_events("warning", "error", "exception", "critical")
    assert len(events) > 30
    assert [event for event in sorted(events) if f"| `{event}` |" not in page("operations")] == []
