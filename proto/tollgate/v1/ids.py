#!/usr/bin/env python3
"""Recomputes Tollgate's ids, as ids.md describes them. Needs nothing but Python 3.

    python3 ids.py    checks itself against ids.json, prints how many vectors agree

Import it to recompute the ids of your own records:

    from ids import canonical, event_id
    event_id(message.record_id, canonical(message.original_json)) == message.event_id
"""

import hashlib
import json
import pathlib


def _hash(*parts: bytes) -> str:
    """First 128 bits of SHA-256 over the parts, each after its length."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(len(part).to_bytes(8, "big"))
        sha256.update(part)
    return sha256.hexdigest()[:32]


def record_id(kind: str, rule: str, *fields: bytes) -> str:
    return _hash(b"tollgate.v1.record", kind.encode(), rule.encode(), *fields)


def event_id(record_id: str, canonical_json: str) -> str:
    content = hashlib.sha256(canonical_json.encode()).digest()
    return _hash(b"tollgate.v1.event", bytes.fromhex(record_id), content)


def entry_id(record_id: str, kind: str, revision: int) -> str:
    return _hash(b"tollgate.v1.entry", bytes.fromhex(record_id), kind.encode(), b"%d" % revision)


def state_id(number: str, version: int) -> str:
    return _hash(b"tollgate.v1.user-state", number.encode(), b"%d" % version)


def quarantine_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


class _Number(str):
    """A number as it was received."""


def _not_json(token: str):
    raise ValueError("not JSON: " + token)


def canonical(text: str) -> str:
    """The canonical form of a JSON text; ValueError where it has none."""
    value = json.loads(
        text,
        parse_int=_Number,
        parse_float=_Number,
        parse_constant=_not_json,
        object_pairs_hook=_object,
    )
    result = _write(value, 0)
    result.encode()  # refuses lone surrogates
    return result


def _object(members: list) -> dict:
    for _, value in members:
        _refuse_lone_surrogates(value)  # also in values that the next line drops
    return dict(members)


def _refuse_lone_surrogates(value) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _refuse_lone_surrogates(item)


def _write(value, depth: int) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, (dict, list)) and depth >= 128:
        raise ValueError("nested deeper than 128 levels")
    if isinstance(value, dict):
        # Python orders text by code point, which is the order of UTF-8 bytes.
        members = (_write(key, depth) + ":" + _write(value[key], depth + 1) for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _check(vectors: dict) -> int:
    checked = 0

    def same(computed: str, published: str) -> None:
        nonlocal checked
        assert computed == published, f"computed {computed}, published {published}"
        checked += 1

    for v in vectors["records"]:
        fields = [field.encode() for field in v["fields"]]
        same(record_id(v["kind"], v["rule"], *fields), v["record_id"])
    for v in vectors["events"]:
        same(canonical(v["text"]), v["canonical"])
        same(event_id(v["record_id"], v["canonical"]), v["event_id"])
    for text in vectors["not_canonical"]:
        try:
            canonical(text)
        except ValueError:
            checked += 1
        else:
            raise AssertionError("should have no canonical form: " + text)
    for v in vectors["entries"]:
        same(entry_id(v["record_id"], v["kind"], v["revision"]), v["entry_id"])
    for v in vectors["states"]:
        same(state_id(v["number"], v["version"]), v["state_id"])
    for v in vectors["quarantined"]:
        same(quarantine_id(bytes.fromhex(v["bytes_hex"])), v["quarantine_id"])
    return checked


if __name__ == "__main__":
    published = pathlib.Path(__file__).with_name("ids.json").read_text(encoding="utf-8")
    print(_check(json.loads(published)), "vectors agree")
