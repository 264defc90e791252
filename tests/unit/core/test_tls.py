"""Certificate and key are checked when the settings are read; every mistake is one line."""

from __future__ import annotations

import pytest

from app.core.errors import SettingsError
from app.core.settings import load_settings
from tests.tls import make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("tls"))


def settings(cert, key):
    return load_settings({"FORKLIFT_TLS_CERT": str(cert), "FORKLIFT_TLS_KEY": str(key)})


def failure(cert, key):
    with pytest.raises(SettingsError) as caught:
        settings(cert, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_matching_pair_turns_tls_on(pair):
    assert settings(pair.cert, pair.key).has_tls
    assert not load_settings({}).has_tls


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_one_file_without_the_other_is_refused(pair, missing):
    given = {"cert": pair.cert, "key": pair.key} | {missing: ""}
    assert failure(**given) == "TLS_CERT and TLS_KEY are needed together"


def test_a_file_that_is_not_there_is_named(pair, tmp_path):
    assert "TLS_KEY" in failure(pair.cert, tmp_path / "none")
    assert f"{tmp_path / 'none'} cannot be read" in failure(tmp_path / "none", pair.key)


def test_a_folder_cannot_be_read(pair, tmp_path):
    assert "cannot be read: Is a directory" in failure(tmp_path, pair.key)


def test_swapped_files_are_told_apart(pair):
    assert f"{pair.key} holds no certificate in PEM" in failure(pair.key, pair.cert)


def test_a_key_of_another_certificate_is_refused(pair, tmp_path):
    assert "does not belong to the certificate" in failure(pair.cert, make_pair(tmp_path).key)


def test_a_damaged_certificate_is_refused(pair, tmp_path):
    damaged = tmp_path / "damaged.crt"
    lines = pair.cert.read_text().splitlines()
    damaged.write_text("\n".join([lines[0], "A" * 64, *lines[2:]]))
    assert "cannot be used" in failure(damaged, pair.key)


def test_a_key_with_a_password_is_refused_and_asks_nobody(pair, tmp_path):
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(pair.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    secret = form.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))
    assert "a key with a password" in failure(pair.cert, locked)
