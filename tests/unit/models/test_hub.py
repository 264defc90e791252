"""A folder is never looked for at a hub; a hub that cannot be reached is not waited for."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.models.checkpoint.from_hub import hub
from app.models.checkpoint.from_hub.hub import can_reach_hub, where_to_look
from app.models.checkpoint.loader import load_checkpoint

HUB = "https://hub.example"


@pytest.fixture
def cut_off(monkeypatch) -> list[object]:
    """Names that were to be resolved; none can be."""
    asked: list[object] = []

    def refuse(*address: object, **_options: object) -> None:
        asked.append(address)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    return asked


def test_a_folder_asks_for_no_name(cut_off, tmp_path):
    assert where_to_look(load_settings({"FORKLIFT_MODEL": str(tmp_path)}))["local_files_only"]
    assert cut_off == []


def test_a_hub_id_without_network_is_one_line_at_once(cut_off):
    with capture_logs() as lines, pytest.raises(ModelLoadError) as raised:
        load_checkpoint(load_settings({"FORKLIFT_MODEL": "some-org/some-model"}), lambda _: None)
    assert [line["event"] for line in lines] == ["hub_unreachable"]
    assert len(cut_off) <= 2, "nobody tried again and again"
    assert "some-org/some-model" in str(raised.value) and "\n" not in str(raised.value)


def test_a_hub_whose_name_is_known_is_asked(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert can_reach_hub(HUB)
    assert not where_to_look(load_settings({"FORKLIFT_MODEL": "some-org/some-model"}))["local_files_only"]


def test_behind_a_proxy_names_need_not_be_known(cut_off, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:3128"})
    assert can_reach_hub(HUB)


def test_offline_is_offline(cut_off, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert not can_reach_hub(HUB)
    assert cut_off == []
