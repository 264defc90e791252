"""Manifests: valid for Kubernetes, and consistent with the server that they start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from app.client.discovery.registry_address import registry_address
from app.serve.incoming.gate import PROBES
from tests.deploy.reading import DEFAULTS, DEPLOY, GRACE_S, manifest, manifests, program, run, unknown_settings
from tests.service.conftest import REPOSITORY
from tests.thinned import few_of

CLUSTER = DEPLOY / "kubernetes"
# Kinds that Kubernetes itself does not know.
CUSTOM = {"ServiceMonitor"}


def deployment():
    return manifest("Deployment")["spec"]


def pod():
    return deployment()["template"]["spec"]


def container():
    return pod()["containers"][0]


def settings():
    return manifest("ConfigMap")["data"]


@pytest.mark.parametrize("document", manifests("base") + manifests("monitoring"), ids=lambda document: document["kind"])
def test_manifests_are_valid(document, tmp_path):
    if document["kind"] in CUSTOM:
        pytest.skip("a kind of the Prometheus operator, whose schema no package brings")
    file = tmp_path / "manifest.yaml"
    file.write_text(yaml.safe_dump(document))
    assert "passed" in run(sys.executable, "-m", "kubernetes_validate", "--strict", file)


@pytest.mark.parametrize("overlay", few_of(["base", "gpu", "grpc", "registry", "monitoring"], 1))
def test_kustomize_builds_each_folder_and_what_it_builds_is_valid(overlay, tmp_path):
    built = run(program("kubectl"), "kustomize", CLUSTER / overlay)
    documents = [document for document in yaml.safe_load_all(built) if document["kind"] not in CUSTOM]
    assert documents
    for at, document in enumerate(documents):
        file = tmp_path / f"{at}.yaml"
        file.write_text(yaml.safe_dump(document))
        run(sys.executable, "-m", "kubernetes_validate", "--strict", file)


def test_the_gpu_folder_asks_for_a_gpu_and_refuses_to_do_without():
    documents = yaml.safe_load_all(run(program("kubectl"), "kustomize", CLUSTER / "gpu"))
    found = {document["kind"]: document for document in documents}
    limits = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert found["ConfigMap"]["data"]["FORKLIFT_DEVICE"] == "cuda"


def test_the_registry_folder_opens_the_way_to_what_it_announces_in():
    kustomization = yaml.safe_load((CLUSTER / "registry" / "kustomization.yaml").read_text())
    settings_patch, way_patch = (yaml.safe_load(one["patch"]) for one in kustomization["patches"])
    address = registry_address(settings_patch[0]["value"])
    assert settings_patch[0]["path"] == "/data/FORKLIFT_REGISTRY"
    ports = [port["port"] for rule in way_patch[0]["value"] for port in rule["ports"]]
    assert int(address.hosts[0].rpartition(":")[2]) in ports


def test_the_grpc_folder_opens_the_port_that_it_binds_everywhere():
    documents = yaml.safe_load_all(run(program("kubectl"), "kustomize", CLUSTER / "grpc"))
    found = {document["kind"]: document for document in documents}
    port = int(found["ConfigMap"]["data"]["FORKLIFT_GRPC_BIND"].rpartition(":")[2])
    ports = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {one["name"]: one["containerPort"] for one in ports} == {"http": 5000, "grpc": port}
    assert {one["targetPort"] for one in found["Service"]["spec"]["ports"]} == {"http", "grpc"}
    opened = {one["port"] for one in found["NetworkPolicy"]["spec"]["ingress"][0]["ports"]}
    assert opened == {5000, port}


def test_every_environment_name_is_a_setting():
    for file in CLUSTER.rglob("*.yaml"):
        comment_free = "\n".join(line.partition("#")[0] for line in file.read_text().splitlines())
        assert not unknown_settings(comment_free), file


def test_the_pod_gets_no_variables_of_services():
    """A Service named forklift would set FORKLIFT_PORT, which is no setting and would stop the start."""
    assert pod()["enableServiceLinks"] is False
    environ = os.environ | {"FORKLIFT_PORT": "tcp://10.0.0.1:80"}
    check = "from app.core.settings import load_settings; load_settings()"
    done = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, env=environ, capture_output=True, text=True)
    assert "unknown setting FORKLIFT_PORT" in done.stderr


def test_probes_ask_routes_that_answer_without_a_key():
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["path"] in PROBES
        assert container()[probe]["httpGet"]["port"] == "http"
    assert container()["livenessProbe"]["httpGet"]["path"] == "/livez", "a server that loads or drains is alive"


def test_the_startup_probe_waits_for_longer_than_a_load_may_take():
    probe = container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > float(settings()["FORKLIFT_LOAD_TIMEOUT_S"])


def test_the_pod_is_killed_only_after_the_drain():
    drain_s = float(settings()["FORKLIFT_DRAIN_TIMEOUT_S"])
    pause_s = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] > pause_s + drain_s + GRACE_S


def test_ports_and_labels_belong_together():
    [port] = container()["ports"]
    assert port["containerPort"] == int(DEFAULTS.bind.rpartition(":")[2])
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert manifest("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    labels = deployment()["template"]["metadata"]["labels"]
    assert deployment()["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    monitor = manifest("ServiceMonitor", "monitoring")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= manifest("Service")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == manifest("Service")["spec"]["ports"][0]["name"]


def test_the_container_is_as_restricted_as_the_strictest_standard_asks():
    """The rules of the Pod Security Standard `restricted`, and a read-only root file system."""
    of_pod, of_container = pod()["securityContext"], container()["securityContext"]
    assert of_pod["runAsNonRoot"]
    assert of_pod["seccompProfile"]["type"] == "RuntimeDefault"
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"]["drop"] == ["ALL"]
    assert of_container["readOnlyRootFilesystem"]
    writable = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/dev/shm"}


def test_autoscaling_follows_a_metric_that_exists_and_a_queue_that_can_be_that_long(metric_names):
    scaler = manifest("HorizontalPodAutoscaler", "monitoring")["spec"]
    [metric] = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in metric_names
    assert float(metric["pods"]["target"]["averageValue"]) < float(settings()["FORKLIFT_MAX_QUEUE"])
    adapter = yaml.safe_load((CLUSTER / "monitoring" / "adapter-values.yaml").read_text())
    [rule] = adapter["rules"]["custom"]
    assert rule["seriesQuery"].startswith(name + "{")
    assert rule["name"]["as"] == name
    assert scaler["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
