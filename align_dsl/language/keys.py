"""Which keys the files may have, and where: read off the annotations of their declarations."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel


def keys_at(kind: Any, loc: Iterable[int | str]) -> set[str]:
    """The keys that are known at `loc`, found by walking down the annotations."""
    here: list[Any] = [kind]
    for part in loc:
        here = [deeper for one in here for deeper in kinds_below(one, part)]
    return {
        f.alias or name
        for one in here
        for member in members(one)
        if isinstance(member, type) and issubclass(member, BaseModel)
        for name, f in member.model_fields.items()
    }


def kinds_below(kind: Any, part: int | str) -> Iterator[Any]:
    """What may stand under a key, or in a place of a list."""
    for member in members(kind):
        arguments = typing.get_args(member)
        if isinstance(part, int) and typing.get_origin(member) is list:
            yield arguments[0]
        elif typing.get_origin(member) is dict:
            yield arguments[1]
        elif isinstance(member, type) and issubclass(member, BaseModel):
            for name, f in member.model_fields.items():
                if part in (name, f.alias):
                    yield f.annotation


def members(kind: Any) -> Iterator[Any]:
    """What a union may be; of anything else, itself."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        yield from members(typing.get_args(kind)[0])
    elif origin in (typing.Union, type(int | str)):
        for member in typing.get_args(kind):
            yield from members(member)
    else:
        yield kind
