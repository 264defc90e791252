"""Tests on trained weights, run by ``make test-real``."""
