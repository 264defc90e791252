"""docs/deployment.md: its commands exist, and the one for a certificate makes one that is accepted."""

from __future__ import annotations

import re

import pytest

from app.core.settings import load_settings
from tests.deploy.reading import DEPLOY, alert_rules, program, run
from tests.service.conftest import REPOSITORY
from tools.pages import blocks

PAGE = (REPOSITORY / "docs" / "deployment.md").read_text()


def block_with(word: str) -> str:
    return next(block.text for block in blocks(PAGE) if word in block.text)


def test_the_command_for_a_certificate_makes_one_that_the_server_takes(tmp_path):
    openssl = program("openssl")
    command = block_with("openssl req").partition("FORKLIFT_")[0].replace("openssl", openssl, 1)
    run("bash", "-ec", command, cwd=tmp_path)
    names = {"FORKLIFT_TLS_CERT": str(tmp_path / "tls.crt"), "FORKLIFT_TLS_KEY": str(tmp_path / "tls.key")}
    assert load_settings(names).has_tls


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"\b((?:deploy|tests)/[\w./-]+\w)", PAGE))
    assert len(named) > 8
    assert not [name for name in named if not (REPOSITORY / name).exists()]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_what_to_do_about_each_alert_is_told(rule):
    assert f"| `{rule['alert']}` | " in PAGE


def test_every_folder_of_manifests_is_told():
    folders = [path for path in (DEPLOY / "kubernetes").iterdir() if path.is_dir()]
    assert all(f"kubectl apply -k deploy/kubernetes/{path.name}" in PAGE for path in folders)
