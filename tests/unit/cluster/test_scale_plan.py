"""What is told to Ray: settings, bounds, the environment; and what is refused beforehand."""

from __future__ import annotations

import stat

import pytest
import yaml
from click.testing import CliRunner

from app.cli.main import main
from app.cluster.scale_error import ScaleError
from app.cluster.scale_plan import (
    Entrance,
    Replicas,
    ScalePlan,
    fingerprint,
    merged_environment,
    replica_settings,
    require_keys,
)
from app.cluster.tokens import find_token, make_token
from app.core.errors import SettingsError
from app.core.settings import load_settings
from tests.tls import make_pair
from tools import ray_config


def settings_of(**settings: object):
    return load_settings({f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()})


def plan_of(replicas: Replicas | None = None, entrance: Entrance | None = None, **settings: object) -> ScalePlan:
    return ScalePlan(settings_of(**settings), replicas or Replicas(), entrance or Entrance())


def test_a_replica_reads_what_was_set_and_nothing_else():
    given = settings_of(max_batch_size=4, api_keys="a,b", bind="127.0.0.1:1", workers=1, prefix_cache=False)
    told = replica_settings(given)
    assert told["FORKLIFT_MAX_BATCH_SIZE"] == "4" and told["FORKLIFT_PREFIX_CACHE"] == "false"
    assert not {"FORKLIFT_API_KEYS", "FORKLIFT_BIND", "FORKLIFT_WORKERS"} & set(told)
    read = load_settings(merged_environment(told, {"FORKLIFT_API_KEYS": "a,b", "FORKLIFT_MAX_BATCH_SIZE": "9"}))
    assert (read.max_batch_size, read.api_keys) == (4, ("a", "b"))


def test_models_are_named_by_paths_that_hold_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(f'[one]\npath = "{tmp_path}"\n')
    told = replica_settings(settings_of(models="models.toml"))
    assert told["FORKLIFT_MODELS"] == str(tmp_path / "models.toml")
    assert [plan.name for plan in load_settings(told).plans] == ["one"]
    assert replica_settings(settings_of(model="owner/name"))["FORKLIFT_MODEL"] == "owner/name"


def test_a_node_without_the_deployments_keys_has_no_replica():
    expected = fingerprint(("a",))
    require_keys(settings_of(api_keys="a"), expected)
    require_keys(settings_of(), None)
    for settings in (settings_of(), settings_of(api_keys="b")):
        with pytest.raises(SettingsError, match="API_KEYS"):
            require_keys(settings, expected)


def test_rays_bounds_stand_above_ours():
    plan = plan_of(drain_timeout_s=40, request_timeout_s=200, max_queue=50)
    deployment = plan.deployment()
    assert deployment["max_ongoing_requests"] > plan.settings.num_http_threads
    assert deployment["graceful_shutdown_timeout_s"] > 40
    assert int(plan.environment()["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 200


def test_the_number_of_replicas_is_fixed_or_follows_the_places():
    fixed = plan_of(Replicas(3, 3, num_cpus=2, num_gpus=0.5)).deployment()
    assert fixed["num_replicas"] == 3 and "autoscaling_config" not in fixed
    assert fixed["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}
    scaled = plan_of(Replicas(1, 4), max_queue=9).deployment()
    assert "num_replicas" not in scaled
    assert (scaled["autoscaling_config"]["min_replicas"], scaled["autoscaling_config"]["max_replicas"]) == (1, 4)
    with pytest.raises(ScaleError, match="3 to 2 replicas"):
        Replicas(3, 2)


def test_every_process_of_ray_gets_what_it_needs():
    environment = plan_of().environment()
    assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_worker_niceness"] == "0"
    assert environment["RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING"] == "0"
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert plan_of(entrance=Entrance(proxy="python")).environment()["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


def test_a_session_chooses_its_replica_by_a_header():
    environment = plan_of(entrance=Entrance(affinity="X-Session-Id")).environment()
    assert environment["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"] == "hdr(x-session-id)"
    with pytest.raises(ScaleError, match="no name of a header"):
        Entrance(affinity="x)\n    stats")
    with pytest.raises(ScaleError, match="HAProxy"):
        Entrance(proxy="python", affinity="X-Session-Id")


def test_what_no_replica_would_heed_is_refused(tmp_path):
    with pytest.raises(ScaleError, match="TLS_CERT"):
        plan_of(**make_pair(tmp_path).settings)
    with pytest.raises(ScaleError, match="GRPC_BIND"):
        plan_of(grpc_bind="127.0.0.1:5001")
    with pytest.raises(ScaleError, match="REGISTRY"):
        plan_of(registry="zookeeper://host/forklift")


def test_a_token_is_made_once_and_nobody_else_can_read_it(tmp_path):
    environ = {"HOME": str(tmp_path)}
    assert find_token(environ) is None
    token = make_token(environ)
    assert len(token) == 64 and make_token(environ) == find_token(environ) == token
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
    assert find_token(environ | {"RAY_AUTH_TOKEN": "given"}) == "given"


def test_the_config_file_for_those_who_run_ray_is_as_it_is_written_now():
    assert ray_config.FILE.read_text(encoding="utf-8") == ray_config.page()


def test_a_config_file_can_be_printed_without_ray():
    result = CliRunner().invoke(main, ["scale", "up", "--print-config", "--replicas", "1-3"])
    assert result.exit_code == 0, result.output
    [application] = yaml.safe_load(result.stdout)["applications"]
    assert application["deployments"][0]["autoscaling_config"]["max_replicas"] == 3


@pytest.mark.parametrize("arguments", [["up"], ["drain", "10.0.0.1"]])
def test_what_needs_ray_names_the_extra_in_one_line(monkeypatch, arguments):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["scale", *arguments])
    assert result.exit_code == 1
    assert result.stderr == "forklift: Ray is not installed: pip install 'forklift-serve[scale]'\n"


@pytest.mark.parametrize("given", ["0", "3-2", "a", "1-", "-1"])
def test_a_number_of_replicas_that_cannot_be_is_wrong_usage(given):
    assert CliRunner().invoke(main, ["scale", "up", f"--replicas={given}"]).exit_code == 2
