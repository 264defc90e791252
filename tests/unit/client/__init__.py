"""Tests of the Python client\x27s parts that need no server of ours."""
