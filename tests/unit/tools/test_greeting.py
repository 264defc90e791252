"""What `make run` says is what will be so."""

from __future__ import annotations

import pytest

from app.core.settings import load_settings
from tools.greeting import lines


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({}, "http://127.0.0.1:5000/complete "),
        ({"FORKLIFT_BIND": "127.0.0.1:5077"}, "http://127.0.0.1:5077/complete "),
        ({"FORKLIFT_BIND": "localhost"}, "http://localhost:5000/complete "),
        ({"FORKLIFT_BIND": "[::]:81"}, "http://[::1]:81/complete "),
        ({"FORKLIFT_BIND": "unix:/run/f.sock"}, "--unix-socket /run/f.sock http://localhost/complete "),
        ({"FORKLIFT_PATH_PREFIX": "/llm"}, "http://127.0.0.1:5000/llm/complete "),
        ({"FORKLIFT_API_KEYS": "secret"}, "Authorization: Bearer '$KEY"),
    ],
)
def test_the_line_to_try_asks_the_address_in_use(environ, target):
    said = "\n".join(lines(load_settings(environ), environ))
    assert target in said
    assert "secret" not in said


def test_the_port_in_use_is_said():
    environ = {"FORKLIFT_BIND": "127.0.0.1:5077"}
    assert "starting on port 5077 (127.0.0.1:5077)" in lines(load_settings(environ), environ)[0]


def test_a_setting_without_its_prefix_is_said_to_be_ignored():
    environ = {"MODEL": "/models/mine", "HOME": "/root"}
    assert lines(load_settings(environ), environ)[0] == (
        "MODEL=/models/mine is not read: write FORKLIFT_MODEL=/models/mine"
    )


def test_what_is_tried_is_what_the_model_answers_well():
    of_demo, of_another = (
        lines(load_settings(environ), environ) for environ in ({}, {"FORKLIFT_MODEL": "/models/mine"})
    )
    assert any("def __len__(self)" in line for line in of_demo)
    assert any('"data": "def add(a, b):"' in line for line in of_another)


def test_a_browser_is_told_the_address_where_it_can_open_it():
    environ = {"FORKLIFT_BIND": "[::]:81"}
    assert lines(load_settings(environ), environ)[-1] == "or open http://[::1]:81/ in a browser."
    environ = {"FORKLIFT_BIND": "unix:/run/f.sock"}
    assert "browser" not in "\n".join(lines(load_settings(environ), environ))
