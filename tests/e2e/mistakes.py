"""Mistakes in settings and options at a start; those in a model's folder are in mistaken_folders.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Environ = dict[str, str]


@dataclass(frozen=True)
class Mistake:
    """``prepare`` makes what is wrong in an empty folder; ``said`` is what the line must hold."""

    name: str
    said: str
    prepare: Callable[[Path], Environ]
    needs_model: bool = False
    without_rights: bool = False


def settings(**values: object) -> Callable[[Path], Environ]:
    """Wrong settings alone; ``{folder}`` stands for the folder of the run."""

    def prepare(folder: Path) -> Environ:
        return {f"FORKLIFT_{name}": str(value).replace("{folder}", str(folder)) for name, value in values.items()}

    return prepare


def option(text: str) -> Callable[[Path], Environ]:
    return lambda _folder: {"GUNICORN_CMD_ARGS": text}


def tables(text: str) -> Callable[[Path], Environ]:
    def prepare(folder: Path) -> Environ:
        (folder / "models.toml").write_text(text)
        return {"FORKLIFT_MODELS": str(folder / "models.toml")}

    return prepare


def locked_key(folder: Path) -> Environ:
    import trustme
    from cryptography.hazmat.primitives import serialization

    leaf = trustme.CA().issue_cert("localhost")
    (folder / "tls.crt").write_bytes(leaf.cert_chain_pems[0].bytes())
    private = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(private.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x")))
    return settings(TLS_CERT="{folder}/tls.crt", TLS_KEY="{folder}/tls.key")(folder)


MISTAKES_OF_SETTINGS = (
    Mistake("a name that does not exist", "did you mean FORKLIFT_MAX_QUEUE?", settings(MAX_QUEU=1)),
    Mistake("no number", "FORKLIFT_MAX_QUEUE: ", settings(MAX_QUEUE="many")),
    Mistake("quotes from an env file", "leave the quotes out", settings(MAX_QUEUE='"7"')),
    Mistake("out of bounds", "FORKLIFT_MAX_BATCH_SIZE: ", settings(MAX_BATCH_SIZE=0)),
    Mistake("a blank value", "FORKLIFT_TLS_CERT: is set and blank", settings(TLS_CERT=" ")),
    Mistake("keys without a key", "FORKLIFT_API_KEYS: is set and holds no key", settings(API_KEYS=",")),
    Mistake("keys that are empty", "FORKLIFT_API_KEYS: is set and holds no key", settings(API_KEYS="")),
    Mistake("an unknown host", "FORKLIFT_BIND: 'abc' is neither an address", settings(BIND="abc")),
    Mistake("a port alone", "FORKLIFT_BIND: 70000 is a port without", settings(BIND="70000")),
    Mistake("no port", "FORKLIFT_BIND: 70000 in 127.0.0.1:70000 is no port", settings(BIND="127.0.0.1:70000")),
    Mistake("a URL to listen on", "FORKLIFT_BIND: http://127.0.0.1:80 is a URL", settings(BIND="http://127.0.0.1:80")),
    Mistake("a port that is taken", "is in use by another program", settings(BIND="127.0.0.1:{taken}")),
    Mistake("another machine's address", "192.0.2.1 is no address of this", settings(BIND="192.0.2.1")),
    Mistake("a socket in no folder", "is no folder", settings(BIND="unix:/nowhere/f.sock")),
    Mistake("a path prefix that is none", "FORKLIFT_PATH_PREFIX: is no path", settings(PATH_PREFIX="llm")),
    Mistake("no GPU", "FORKLIFT_DEVICE is cuda, but no GPU", settings(DEVICE="cuda")),
    Mistake("two settings at odds", "cannot both be above 1", settings(GPUS_PER_WORKER=2, WORKERS_PER_GPU=2)),
    Mistake("a certificate alone", "TLS_CERT and TLS_KEY are needed together", settings(TLS_CERT="/x")),
    Mistake("a key with a password", "a key with a password", locked_key),
    Mistake("no chat template", "FORKLIFT_CHAT_TEMPLATE: the file /x does not", settings(CHAT_TEMPLATE="/x")),
    Mistake("no file of models", "FORKLIFT_MODELS: cannot read", settings(MODELS="/nowhere.toml")),
    Mistake("a model's name with a slash", 'quote the name: ["org/m"]', tables("[org/m]\npath = '/m'")),
    Mistake("a model's name with a dot", 'quote it: ["qwen2.5"]', tables("[qwen2.5]\npath = '/m'")),
    Mistake("names that differ by case", "differ by case only", tables("[a]\npath = '/m'\n[A]\npath = '/n'")),
    Mistake("--max-requests", "option --max-requests is not possible here", option("--max-requests 20")),
    Mistake("--preload", "option --preload is not possible here", option("--preload")),
    Mistake("--reload", "option --reload is not possible here", option("--reload")),
    Mistake("--threads", "option --threads 2 is not possible here", option("--threads 2")),
    Mistake("-k gevent", "option --worker-class gevent is not possible here", option("-k gevent")),
)
