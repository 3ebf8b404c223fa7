"""Turns what IPython's formatters return into the JSON of a `result` line."""

import base64
import json
import math

# A value larger than this has its text alone; nobody wants the same megabytes twice.
MAX_JSON_BYTES = 1 << 20

# Of data that has no other form than this type's, by the lower estimate below.
MAX_DATA_BYTES = 32 << 20

BASE64_TYPES = {"application/pdf"}


def encode(bundle: dict) -> dict:
    """Makes every value of a mime bundle JSON: base64 for bytes, text as it is, data as data where the type is none of text."""
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
    """Copies `value` as plain JSON data, NaN and infinity as null; `plain` turns what is no JSON into what is.

    Raises `ValueError` when it has no exact JSON form, contains itself, or is larger than `room` bytes.
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
    """Names an object's member as `json.dumps` does."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise ValueError(f"{type(key).__name__} is not a JSON key")


def _as_data(value: object) -> object:
    """A structured value of a type of its own: the JSON of plotly's figures, say."""
    try:
        return json_value(value, MAX_DATA_BYTES)
    except ValueError:
        return _as_text(value)


def _as_text(value: object) -> str:
    """What should have been text, and is none."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _is_binary(mime: str) -> bool:
    return mime in BASE64_TYPES or (mime.startswith("image/") and mime != "image/svg+xml")
