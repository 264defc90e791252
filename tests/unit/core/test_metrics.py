"""What one process counts, and what several count together through a folder."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest, values

from app.core.metrics import FOLDER, Metrics
from app.core.work.job_events import TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams


def samples(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.source()).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def finished_job(num_tokens: int) -> Job:
    job = Job("id", [1, 2, 3], SamplingParams(num_tokens))
    job.start()
    for _ in range(num_tokens):
        job.count_token()
        job.emit(TextDelta("x"))
    job.finish("length")
    return job


def observe(metrics: Metrics, job: Job) -> None:
    metrics.observe_generation(job.timings, job.usage, [job], 0.5)


def test_a_request_is_counted_by_route_status_and_reason():
    metrics = Metrics()
    metrics.count_request("/complete", 200, None)
    metrics.count_request(None, 404, "route_not_found")
    found = samples(metrics)
    assert found['forklift_requests_total{route="/complete",status="200"}'] == 1
    assert found['forklift_requests_total{route="none",status="404"}'] == 1
    assert found['forklift_request_errors_total{reason="route_not_found"}'] == 1


def test_points_in_time_that_a_request_never_reached_are_not_observed():
    metrics = Metrics()
    observe(metrics, finished_job(3))
    observe(metrics, finished_job(1))
    observe(metrics, Job("never-started", [1], SamplingParams(1)))
    found = samples(metrics)
    assert found["forklift_e2e_request_latency_seconds_count"] == 3
    assert found["forklift_request_queue_time_seconds_count"] == 2
    assert found["forklift_time_to_first_token_seconds_count"] == 2
    assert found["forklift_inter_token_latency_seconds_count"] == 1
    assert found["forklift_generation_tokens_total"] == 4
    assert found["forklift_prompt_tokens_total"] == 7


def test_a_load_is_counted_by_how_it_ended_and_timed_where_it_worked():
    metrics = Metrics()
    with metrics.load_of("a"):
        pass
    with pytest.raises(MemoryError), metrics.load_of("a"):
        raise MemoryError
    metrics.count_refused_load("b")
    metrics.count_unload("a", "idle")
    found = samples(metrics)
    outcomes = {("a", "loaded"), ("a", "failed"), ("b", "refused")}
    assert all(found[f'forklift_model_loads_total{{model="{m}",outcome="{o}"}}'] == 1 for m, o in outcomes)
    assert found['forklift_model_unloads_total{model="a",reason="idle"}'] == 1
    assert found["forklift_model_load_seconds_count"] == 1


def test_workers_add_up_and_a_successor_goes_on_where_the_dead_one_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    first, second = Metrics(lambda: "slot0"), Metrics(lambda: "slot1")
    for metrics in (first, first, second):
        metrics.count_request("/chat", 200, None)
    successor = Metrics(lambda: "slot0")
    assert samples(successor)['forklift_requests_total{route="/chat",status="200"}'] == 3
    successor.count_request("/chat", 200, None)
    assert samples(second)['forklift_requests_total{route="/chat",status="200"}'] == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture(autouse=True)
def in_one_process_again(monkeypatch):
    """Whatever the test before has shared."""
    monkeypatch.delenv(FOLDER, raising=False)
    yield
    values.close_all_multiprocess_files()
    monkeypatch.undo()
    Metrics()
