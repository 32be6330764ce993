#!/usr/bin/env python3
"""Computes aksk.json: digests made with Python's own hmac and hashlib, to check ours against.

Run in this folder: python3 aksk.py > aksk.json
"""
import base64
import hashlib
import hmac
import json

CASES = [
    # username, secret, url, nonce, created
    ("ka4kESI5demoCallbackYnEm2aaa", "s3cr3t-AcmeVoice-0001",
     "https://push.example.com:8443/in/7f3a/status",
     "66C92B11FF8A425FB8D4CCFE0ED9ED1F", "2026-01-27T12:04:24Z"),
    ("Nt7f9A2CdemoNotifyUss4jq0r57", "x", "http://192.0.2.7:80/fee", "a", "2024-05-20T03:04:24Z"),
    ("Vc3bQ81ZdemoVerifyTt2x9LmKw0", "密钥-äöü-" + "k" * 100,
     "https://push.example.com/x", "0" * 128, "2024-05-20T03:04:24Z"),
]


def b64(raw):
    return base64.b64encode(raw).decode("ascii")


def digests(secret, url, nonce, created):
    key = secret.encode("utf-8")

    def mac(message):
        return b64(hmac.new(key, message.encode("utf-8"), hashlib.sha256).digest())

    plain = hashlib.sha256((nonce + created + secret).encode("utf-8"))
    return {
        "P1": mac(url + nonce + created),
        "P2": mac(url + "\n" + nonce + "\n" + created),
        "P3": mac(nonce + created),
        "P4": b64(plain.digest()),
        "P5": b64(plain.hexdigest().encode("ascii")),
        "P5 without Base64": plain.hexdigest(),
    }


print(json.dumps([
    {"username": user, "secret": secret, "url": url, "nonce": nonce, "created": created,
     "digests": digests(secret, url, nonce, created)}
    for user, secret, url, nonce, created in CASES
], indent=2, ensure_ascii=False))
