"""Dockerfile, .dockerignore and compose.yaml: consistent with each other and with the server."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
import yaml

from app.client.discovery.registry_address import registry_address
from tests.deploy.reading import DEFAULTS, GRACE_S, compose, run, unknown_settings
from tests.service.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPILER_STEP = 'if [ "${COMPILER}" = 1 ]; then apt-get update'
FINAL_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]


def sources() -> set[str]:
    """What the Dockerfile copies from the working tree."""
    copies = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {name for line in copies for name in line.split()[:-1]}


def test_everything_that_is_copied_is_there_and_sent_to_the_builder():
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert sources() == kept
    assert all((REPOSITORY / name).exists() for name in sources())


def test_the_image_is_steered_by_the_two_build_arguments():
    assert re.search(r"^ARG BASE_IMAGE=python:3\.11-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    pin = next(line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert f"ARG TORCH_SPEC={pin}" in DOCKERFILE


@pytest.mark.parametrize(
    ("extras", "more"), [("", set()), ("zookeeper", {"kazoo"}), ("zookeeper, report", {"kazoo", "matplotlib"})]
)
def test_the_image_can_have_extras(extras, more):
    """What the image's build asks pip for, by the Dockerfile's own line."""
    [script] = re.findall(r'bin/python -c "(import configparser.*?)" \\\n > requirements', DOCKERFILE, re.DOTALL)
    script = script.replace("\\\n", "").replace("${EXTRAS}", extras)
    lines = run(sys.executable, "-c", script, cwd=REPOSITORY).splitlines()
    names = {re.split(r"[ >=<]", line.strip())[0] for line in lines if line.strip()}
    assert {"flask", "transformers"} < names
    assert names & {"kazoo", "matplotlib"} == more


def test_the_server_is_process_1_and_not_root():
    assert re.search(r'^CMD \["gunicorn", "wsgi:app"\]$', FINAL_STAGE, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", FINAL_STAGE, re.MULTILINE)
    assert "\nENTRYPOINT" not in FINAL_STAGE


def test_the_health_check_runs_a_module_that_exists():
    [command] = re.findall(r"^HEALTHCHECK .*CMD (\[.+\])$", FINAL_STAGE, re.MULTILINE)
    python, flag, module = yaml.safe_load(command)
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(module)


def test_nothing_is_installed_in_the_final_stage():
    """But for the compiler, where the build is told to put one in."""
    steps = [step for step in FINAL_STAGE.split("\nRUN ") if not step.startswith(COMPILER_STEP)]
    assert len(steps) == FINAL_STAGE.count("\nRUN ")
    assert not any("pip" in step or "apt" in step for step in steps)


COMPOSE_FILES = ["compose.yaml", "deploy/grpc/compose.yaml", "deploy/registry/compose.yaml"]


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_compose_follows_its_specification(file):
    check = "from check_jsonschema import main; main()"
    run(sys.executable, "-c", check, "--builtin-schema", "vendor.compose-spec", REPOSITORY / file)


def test_the_servers_of_the_registrys_file_announce_where_they_can_be_reached():
    services = yaml.safe_load((REPOSITORY / "deploy/registry/compose.yaml").read_text())["services"]
    for name in ("first", "second"):
        service = services[name]
        assert not unknown_settings(" ".join(service["environment"]))
        port = service["ports"][0].partition(":")[0]
        assert service["environment"]["FORKLIFT_ANNOUNCE_URL"].endswith(f":{port}")
        assert service["build"]["args"]["EXTRAS"] == "zookeeper"
        assert (REPOSITORY / "deploy/registry" / service["build"]["context"]).resolve() == REPOSITORY
    (host,) = registry_address(services["first"]["environment"]["FORKLIFT_REGISTRY"]).hosts
    assert host == "zookeeper:2181"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_file_for_grpc_adds_the_port_to_each_service(name):
    service = yaml.safe_load((REPOSITORY / "deploy/grpc/compose.yaml").read_text())["services"][name]
    assert name in compose()
    port = service["environment"]["FORKLIFT_GRPC_BIND"].rpartition(":")[2]
    assert service["ports"][0].endswith(f":{port}")
    assert re.search(rf"^EXPOSE .*\b{port}\b", FINAL_STAGE, re.MULTILINE)
    assert service["build"]["args"]["EXTRAS"] == "${EXTRAS:-grpc}"


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_services_stop_after_the_drain_and_check_what_the_image_checks(name):
    service = compose()[name]
    drain_s = float(re.search(r":-(\d+)\}", service["environment"]["FORKLIFT_DRAIN_TIMEOUT_S"])[1])
    assert float(service["stop_grace_period"].rstrip("s")) > drain_s + GRACE_S
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["test"][1:] == ["python", "-m", "app.serve.probe"]
    assert service["ports"][0].endswith(":" + DEFAULTS.bind.rpartition(":")[2])
    assert service["read_only"]
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert not unknown_settings(" ".join(service["environment"]))


def test_the_gpu_service_is_asked_for_by_name_and_never_falls_back():
    service = compose()["gpu"]
    assert service["profiles"] == ["gpu"]
    assert service["environment"]["FORKLIFT_DEVICE"] == "cuda"
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in device["capabilities"]
    assert "profiles" not in compose()["cpu"]
