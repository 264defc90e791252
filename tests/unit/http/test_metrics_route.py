"""``/metrics`` of a server of one process (the development server)."""

from __future__ import annotations

from app.http.application.factory import create_app
from tests.contract.doubles import World


def test_one_process_tells_its_own_numbers_and_its_board():
    world = World()
    client = create_app(world.context).test_client()
    assert client.post("/complete", json={"prompt": "p"}).status_code == 200
    assert client.post("/complete", json={"prompt": "p", "top_k": -2}).status_code == 400
    answer = client.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert 'forklift_requests_total{route="/complete",status="200"} 1.0' in answer.text
    assert 'forklift_request_errors_total{reason="invalid_parameter"} 1.0' in answer.text
    assert 'forklift_worker_state{slot="0",state="ready"} 1.0' in answer.text
    assert "forklift_generation_tokens_total 3.0" in answer.text
    world.inference.stop()
