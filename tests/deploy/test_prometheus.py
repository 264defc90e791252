"""Dashboard and alerts: every query answered with data by a real Prometheus that scrapes a busy server."""

from __future__ import annotations

import json
import math
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from tests.deploy.reading import DEPLOY, alert_rules, dashboard_queries, program, run
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter, unused_port, wait_for

FOLDER = DEPLOY / "prometheus"
NUM_SCRAPES = 8
OF_A_GPU = "forklift_gpu_"
OF_A_CLUSTER = "forklift-replicas"
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}


class Prometheus:
    """A server with the configuration that we ship, scraping every second."""

    def __init__(self, folder: Path, target: int):
        self.port = unused_port()
        text = (FOLDER / "prometheus.yml").read_text()
        assert "127.0.0.1:5000" in text
        text = text.replace("127.0.0.1:5000", f"127.0.0.1:{target}").replace("15s", "1s").replace("10s", "1s")
        # As the operator labels what it finds in a cluster.
        text += "        labels: {namespace: models, pod: forklift-0}\n"
        (folder / "prometheus.yml").write_text(text)
        (folder / "alerts.yml").write_text((FOLDER / "alerts.yml").read_text())
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ask(self, path: str, **parameters: str) -> dict:
        response = requests.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=parameters, timeout=10)
        answer = response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """The newest value of each series that answers the query."""
        return [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]

    def num_scrapes(self) -> float:
        """None yet while it starts and answers nothing, or something that is no JSON."""
        try:
            return max(self.values("sum_over_time(up[1h])"), default=0)
        except requests.RequestException:
            return 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


class Load:
    """Streams and whole answers, more than the queue holds, some that are wrong or cannot be in time."""

    def __init__(self, server: Forklift):
        self._server = server
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,)) for at in range(4)]
        for thread in self._threads:
            thread.start()

    def _send(self, at: int) -> None:
        bodies = (
            ({"prompt": "def f(x):\n", "max_new_tokens": 200, "ignore_eos": True, "stream": at % 2 == 0}, {}),
            ({"prompt": "def f(x):\n", "max_new_tokens": 5}, {}),
            ({"prompt": "def f(x):\n", "max_new_tokens": 900, "ignore_eos": True}, {"X-Request-Timeout-S": "0.1"}),
            ({"prompt": "def f(x):\n", "temperature": "hot"}, {}),
        )
        while not self._is_over.is_set():
            for body, headers in bodies:
                self._server.post("/complete", json=body, headers=headers)
            time.sleep(0.1)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, model_folder) -> Iterator[Prometheus]:
    """After some scrapes of a server under load."""
    program("prometheus")
    starter = server_starter(tmp_path_factory.mktemp("watched"), Forklift)
    # Of a registry that nobody answers, too.
    nobody = "zookeeper://127.0.0.1:1/forklift"
    server = next(starter)(model=model_folder("gpt2"), max_queue=1, max_new_tokens=900, registry=nobody)
    watcher = Prometheus(tmp_path_factory.mktemp("prometheus"), server.port)
    load = Load(server)
    try:
        wait_for(lambda: watcher.num_scrapes() >= NUM_SCRAPES, "scrapes", patience_s=60)
        yield watcher
    finally:
        load.stop()
        watcher.stop()
        next(starter, None)


def filled_in(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def answered(prometheus: Prometheus, query: str) -> list[float]:
    """The values, once there are some and none is the result of a division by nothing."""

    def look() -> list[float]:
        values = prometheus.values(query)
        return values if all(math.isfinite(value) for value in values) else []

    return wait_for(look, f"data for {query}")


@pytest.mark.parametrize(("panel", "query"), list(dashboard_queries()))
def test_every_panel_has_data(prometheus, panel, query):
    if OF_A_GPU in query:
        pytest.skip("needs a GPU")
    assert answered(prometheus, filled_in(query)), panel


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_every_alert_looks_at_data(prometheus, rule):
    """`bool` makes a comparison answer 0 or 1 where it would otherwise answer nothing."""
    if OF_A_GPU in rule["expr"] or OF_A_CLUSTER in rule["expr"]:
        pytest.skip("needs a GPU, or a cluster")
    assert answered(prometheus, re.sub(r" (==|<=|>=|<|>) ", r" \1 bool ", rule["expr"]))


def test_the_autoscalers_query_has_data(prometheus):
    """The adapter's template, filled in as the adapter does for one pod."""
    adapter = yaml.safe_load((DEPLOY / "kubernetes" / "monitoring" / "adapter-values.yaml").read_text())
    [rule] = adapter["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"]).replace("<<.GroupBy>>", "pod")
    query = query.replace("<<.LabelMatchers>>", 'namespace="models",pod=~"forklift-0"')
    assert len(answered(prometheus, query)) == 1
    assert answered(prometheus, f"count({rule['seriesQuery']})")


def test_prometheus_evaluates_every_rule_without_an_error(prometheus):
    def health() -> set[str] | None:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        found = {rule["health"] for rule in rules}
        return found if len(rules) == len(alert_rules()) and "unknown" not in found else None

    assert wait_for(health, "the first evaluation") == {"ok"}


def test_only_queries_about_gpus_need_a_gpu():
    skipped = {panel for panel, query in dashboard_queries() if OF_A_GPU in query}
    assert skipped == {"GPU memory"}
    assert {rule["alert"] for rule in alert_rules() if OF_A_GPU in rule["expr"]} == {"ForkliftGpuMemory"}
    assert {rule["alert"] for rule in alert_rules() if OF_A_CLUSTER in rule["expr"]} == {"ForkliftNoReplica"}


def test_promtool_accepts_configuration_and_rules_and_their_tests_pass():
    promtool = program("promtool")
    run(promtool, "check", "config", FOLDER / "prometheus.yml")
    run(promtool, "check", "rules", FOLDER / "alerts.yml")
    assert "SUCCESS" in run(promtool, "test", "rules", FOLDER / "alerts_test.yml")


def test_every_alert_has_a_test_that_raises_it_and_one_that_does_not():
    text = (FOLDER / "alerts_test.yml").read_text()
    for rule in alert_rules():
        assert len(re.findall(rf"alertname: {rule['alert']}\b", text)) >= 2, rule["alert"]
        assert rule["annotations"]["summary"]


def test_every_name_is_one_that_the_server_shows(metric_names):
    queries = [query for _, query in dashboard_queries()] + [rule["expr"] for rule in alert_rules()]
    used = set(re.findall(r"\bforklift_[a-z0-9_]+", "\n".join(queries)))
    assert used
    assert used <= metric_names


def test_the_dashboard_shows_every_family_that_the_server_has(metric_names):
    text = (DEPLOY / "grafana" / "forklift.json").read_text()
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in metric_names}
    assert not {name for name in families if name not in text}


def test_every_panel_has_a_place_a_title_and_a_unit():
    panels = json.loads((DEPLOY / "grafana" / "forklift.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]
