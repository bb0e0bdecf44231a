"""A value -> the compressed bytes it is kept as, and back; a name -> text SQLite can compare."""

from __future__ import annotations

import json
import zlib
from typing import Any, TypeVar

from pydantic import ValidationError

from align_dsl.types import Value

V = TypeVar("V", bound=Value)


class DamagedError(Exception):
    """Bytes that are no such value. The store, which knows the file's name, says so to people."""


def pack(value: Value) -> bytes:
    return compressed(value.model_dump())


def unpack(kind: type[V], body: bytes) -> V:
    try:
        text = zlib.decompress(body)
        try:
            return kind.model_validate_json(text)
        except ValidationError:  # pydantic's own reader takes no lone surrogates, json does
            return kind.model_validate(json.loads(text))
    except (ValueError, zlib.error) as error:
        raise DamagedError(kind.__name__) from error


def compressed(data: object) -> bytes:
    # In ASCII, so that lone surrogates survive; by json, so that NaN and infinity do.
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode("ascii"))


def decompressed(body: bytes) -> Any:
    try:
        return json.loads(zlib.decompress(body))
    except (ValueError, zlib.error) as error:
        raise DamagedError("program") from error


def column(text: str) -> str:
    """The text, as far as SQLite can hold it: lone surrogates are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
