"""String formats of JSON schema: what each allows, as a regular expression over the whole string.

``date`` and its kin allow real dates only: years 0001 to 9999 with the Gregorian calendar's leap
years, no second 60 (RFC 3339 knows it; most parsers do not). Annotations ask nothing.
"""

from __future__ import annotations

# Divisible by 4 but not by 100, or by 400; 0000 is left out.
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_TIME = rf"{_CLOCK}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_H16 = "[0-9a-fA-F]{1,4}"
_IPV6 = (
    "(?:"
    + "|".join(
        [f"(?:{_H16}:){{7}}{_H16}"]
        + [
            f"(?:{_H16}(?::{_H16}){{0,{before - 1}}})?::(?:{_H16}(?::{_H16}){{0,{6 - before}}})?"
            for before in range(1, 7)
        ]
        + [f"(?:{_H16}:){{7}}:"]
    )
    + ")"
)
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
# At most 8 labels of 63 letters stay below the 253 letters of a name only by chance; three always do.
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL}){{0,2}}"
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_UNRESERVED = "[a-zA-Z0-9._~!$&'()*+,;=:@-]"
_SEGMENT = f"(?:{_UNRESERVED}|%[0-9a-fA-F]{{2}})"
_TAIL = rf"(?:/{_SEGMENT}*)*(?:\?(?:{_SEGMENT}|[/?])*)?(?:#(?:{_SEGMENT}|[/?])*)?"
_AMOUNT = "[0-9]{1,9}"
_DURATION_TIME = f"T(?:{_AMOUNT}H(?:{_AMOUNT}M(?:{_AMOUNT}S)?)?|{_AMOUNT}M(?:{_AMOUNT}S)?|{_AMOUNT}S)"
_DURATION_DATE = f"(?:{_AMOUNT}Y(?:{_AMOUNT}M(?:{_AMOUNT}D)?)?|{_AMOUNT}M(?:{_AMOUNT}D)?|{_AMOUNT}D)"


def _uuid(version: str) -> str:
    variant = "[0-9a-fA-F]" if version.startswith("[") else "[89abAB]"
    return f"[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-{variant}[0-9a-fA-F]{{3}}-[0-9a-fA-F]{{12}}"


FOLLOWED_FORMATS = {
    "date": _DATE,
    "date-time": f"{_DATE}T{_TIME}",
    "time": _TIME,
    "duration": f"P(?:{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME}|{_AMOUNT}W)",
    "email": rf"{_ATOM}(?:\.{_ATOM}){{0,2}}@{_HOSTNAME}",
    "hostname": _HOSTNAME,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": _uuid("[0-9a-fA-F]"),
    **{f"uuid{version}": _uuid(str(version)) for version in range(1, 9)},
    "uri": rf"[a-zA-Z][a-zA-Z0-9+.-]*://(?:{_HOSTNAME}|{_IPV4})(?::[0-9]{{1,4}})?{_TAIL}",
}
# Formats of OpenAPI, pydantic and zod that describe a value or come with a pattern of their own.
ANNOTATING_FORMATS = frozenset(
    (
        "password",
        "byte",
        "binary",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float",
        "float32",
        "float64",
        "double",
        "decimal",
        "decimal128",
        "base64",
        "base64url",
        "base64urlencoded",
        "json-string",
        "path",
        "file-path",
        "directory-path",
        "url",
        "http-url",
        "phone",
        "e164",
        "cuid",
        "cuid2",
        "ulid",
        "xid",
        "ksuid",
        "nanoid",
        "jwt",
        "emoji",
        "lowercase",
        "uppercase",
        "char",
        "html",
        "markdown",
        "multiline",
        "textarea",
        "color",
        "media-range",
        "commonmark",
        "sf-boolean",
        "sf-string",
        "etag",
        "unixtime",
        "timestamp",
        "currency",
        "money",
        "secret",
        "string",
        "enum",
        "boolean",
        "number",
        "integer",
        "object",
        "array",
        "ipvanyaddress",
        "ipvanyinterface",
        "ipvanynetwork",
    )
)
KNOWN_EQUIVALENTS = {"guid": "uuid"}
