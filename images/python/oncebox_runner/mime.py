"""Turns what IPython's formatters return into the JSON of a `result` line."""

import base64
import json
import math

# A larger value is sent as text only, so that the same megabytes are not sent twice.
MAX_JSON_BYTES = 1 << 20

# The limit for data that has no text form, by the low estimate of `json_value`.
MAX_DATA_BYTES = 32 << 20

BASE64_TYPES = {"application/pdf"}


def encode(bundle: dict) -> dict:
    """Turns every value of a mime bundle into JSON: bytes as base64, text as it is, other data by its mime type."""
    data = {"text/plain": ""}
    for mime, value in bundle.items():
        mime = str(mime)
        if isinstance(value, bytes):
            data[mime] = base64.b64encode(value).decode() if _is_binary(mime) else value.decode(errors="replace")
        elif mime == "application/json":
            try:
                data[mime] = json.loads(value) if isinstance(value, str) else json_value(value)
            except ValueError:
                pass
        elif isinstance(value, str):
            # Base64 made by hand often has line breaks.
            data[mime] = "".join(value.split()) if _is_binary(mime) else value
        elif value is not None:
            data[mime] = _as_text(value) if mime.startswith(("text/", "image/")) else _as_data(value)
    return data


def json_value(value: object, room: int = MAX_JSON_BYTES, plain=None) -> object:
    """Copies `value` as plain JSON data, NaN and infinity as null; `plain` converts items that are not JSON.

    Raises `ValueError` if the value has no exact JSON form, contains itself, or is larger than `room` bytes.
    """

    def copy(item: object) -> object:
        nonlocal room
        room -= len(item) if isinstance(item, str) else 2
        if room < 0:
            raise ValueError("too large")
        if item is None or isinstance(item, (bool, str)):
            return item
        if isinstance(item, float):
            return float(item) if math.isfinite(item) else None
        if isinstance(item, int) and -(2**63) <= item < 2**64:
            return int(item)
        if isinstance(item, (list, tuple)):
            return [copy(part) for part in item]
        if isinstance(item, dict):
            return {_key(key): copy(part) for key, part in item.items()}
        if plain is not None:
            return copy(plain(item))
        raise ValueError(f"{type(item).__name__} is not JSON")

    try:
        return copy(value)
    except RecursionError:
        raise ValueError("too deep") from None


def _key(key: object) -> str:
    """The name of an object's member, as `json.dumps` writes it."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise ValueError(f"{type(key).__name__} is not a JSON key")


def _as_data(value: object) -> object:
    """The JSON of a structured value with its own mime type, such as a plotly figure."""
    try:
        return json_value(value, MAX_DATA_BYTES)
    except ValueError:
        return _as_text(value)


def _as_text(value: object) -> str:
    """The text form of a value that should have been text."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _is_binary(mime: str) -> bool:
    return mime in BASE64_TYPES or (mime.startswith("image/") and mime != "image/svg+xml")
