"""A client for what a Forklift server does. Needs ``requests``; kazoo where servers are found by ZooKeeper,
gRPC for ``grpc://``.

Installed as ``forklift_client``, which a program with an ``app`` of its own imports without a clash; the folder can be
copied, too.

    from forklift_client import Client

    client = Client("http://127.0.0.1:5000")
    client.complete("def add(a, b):", max_new_tokens=16).text
    for piece in client.complete("def add(a, b):", stream=True):
        print(piece.text, end="")

The same calls go over gRPC with ``Client("grpc://127.0.0.1:50051")``, or ``grpcs://`` with TLS, as far as the protocol
has them: complete, chat, infill, fill_mask, embed, tokenize, detokenize and models.

Many servers are found by a registry, and asked in turn of their load:

    with Client.discover("zookeeper://h1,h2/forklift") as client: ...

Options go by the server's own names (``temperature``, ``stop``, ``seed``, ``n``, ...; see docs/api.md).

    ClientError
    ├── SetupError                     the URL, key, proxy, certificates or options given cannot be used
    ├── NoAnswerError                  no connection, or no whole answer in time
    │   └── NoServerError              a registry knows no server that could be asked
    ├── ForeignAnswerError             an answer, but none that a Forklift server gives
    ├── StreamEndedError               a stream broke off
    └── RequestError                   the server's answer; has status, code, param, request_id
        ├── BadRequestError            400: InvalidJsonError, InvalidParameterError,
        │                              UnsupportedParameterError, ContextLengthError
        ├── UnauthorizedError          401
        ├── ForbiddenError             403: a page of another origin asked; KeysNeededError
        ├── MisdirectedError           421: the server does not answer to this host's name
        ├── NotFoundError              404: ModelNotFoundError
        ├── MethodNotAllowedError      405
        ├── BodyTimeoutError           408
        ├── BodyTooLargeError          413
        ├── UnsupportedMediaTypeError  415
        ├── InternalError              500
        ├── UnavailableError           503: OverloadedError, LoadingError, LoadFailedError, AdapterFailedError,
        │                              InsufficientMemoryError, ReplicaLostError, ShuttingDownError
        └── DeadlineError              504: QueueTimeoutError, RequestTimeoutError

A server on this machine (``localhost``, ``127.0.0.0/8``, ``::1``) is asked past any proxy; redirects are not followed,
since a key would follow them.
"""

from .client_answers import (
    Choice,
    Completion,
    Embeddings,
    Entity,
    FoundAnswer,
    LabelScore,
    Message,
    MessagePiece,
    Piece,
    Proposal,
    RankedDocument,
    Timings,
    Token,
    Tokens,
    ToolCall,
    Usage,
)
from .client_errors import (
    AdapterFailedError,
    BadRequestError,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientError,
    ConstraintTooCostlyError,
    ContextLengthError,
    DeadlineError,
    ForbiddenError,
    ForeignAnswerError,
    InsufficientMemoryError,
    InternalError,
    InvalidJsonError,
    InvalidParameterError,
    KeysNeededError,
    LoadFailedError,
    LoadingError,
    MethodNotAllowedError,
    MisdirectedError,
    ModelNotFoundError,
    NoAnswerError,
    NoServerError,
    NotFoundError,
    OverloadedError,
    QueueTimeoutError,
    ReplicaLostError,
    RequestError,
    RequestTimeoutError,
    SetupError,
    ShuttingDownError,
    StreamEndedError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
    UnsupportedParameterError,
)
from .discovery.server_entry import ServerEntry
from .server_client import Client

__all__ = [
    "AdapterFailedError",
    "BadRequestError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "Choice",
    "Client",
    "ClientError",
    "Completion",
    "ConstraintTooCostlyError",
    "ContextLengthError",
    "DeadlineError",
    "Embeddings",
    "Entity",
    "ForbiddenError",
    "ForeignAnswerError",
    "FoundAnswer",
    "InsufficientMemoryError",
    "InternalError",
    "InvalidJsonError",
    "InvalidParameterError",
    "KeysNeededError",
    "LabelScore",
    "LoadFailedError",
    "LoadingError",
    "Message",
    "MessagePiece",
    "MethodNotAllowedError",
    "MisdirectedError",
    "ModelNotFoundError",
    "NoAnswerError",
    "NoServerError",
    "NotFoundError",
    "OverloadedError",
    "Piece",
    "Proposal",
    "QueueTimeoutError",
    "RankedDocument",
    "ReplicaLostError",
    "RequestError",
    "RequestTimeoutError",
    "ServerEntry",
    "SetupError",
    "ShuttingDownError",
    "StreamEndedError",
    "Timings",
    "Token",
    "Tokens",
    "ToolCall",
    "UnauthorizedError",
    "UnavailableError",
    "UnsupportedMediaTypeError",
    "UnsupportedParameterError",
    "Usage",
]
