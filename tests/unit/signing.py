"""An issuer of tokens for the tests: its keys, its tokens, and the endpoint of its public keys."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://issuer.example", "milepost"
NOW = 1_800_000_000.0


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a new RSA key."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


KEYS: dict[str, Any] = {
    "RS256": rsa_key(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
"""Signing keys of the issuer; the id of each key is the name of its algorithm."""


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """Return the public part of a key as a JWK, with these further members."""
    if isinstance(key, rsa.RSAPrivateKey):
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "use": "sig", **members}


def key_set(**keys: Any) -> dict[str, Any]:
    """Return a JWK set of these keys, by their ids."""
    return {"keys": [jwk(key, kid=kid) for kid, key in keys.items()]}


def pem(key: Any) -> bytes:
    """Return the public part of a key in PEM, which confuses verifiers that allow HMAC."""
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def claims(now: float = NOW, **changes: Any) -> dict[str, Any]:
    """Return the claims of a valid token with these changes; an Ellipsis removes a claim."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "roles": ["CALLER"],
        "iat": now - 10,
        "exp": now + 600,
        **changes,
    }
    return {name: value for name, value in good.items() if value is not ...}


def token(
    body: Mapping[str, Any] | None = None,
    key: PrivateKeyTypes | str | bytes | None = None,
    algorithm: str = "RS256",
    **headers: Any,
) -> str:
    """Return a signed token, by default a valid one; an Ellipsis removes a header."""
    given = {"kid": algorithm, "typ": "at+jwt", **headers}
    wanted = {name: value for name, value in given.items() if value is not ...}
    if "typ" not in wanted:
        wanted["typ"] = None  # PyJWT adds JWT otherwise
    signer: Any = KEYS[algorithm] if key is None else key
    return jwt.encode(
        dict(claims() if body is None else body), signer, algorithm=algorithm, headers=wanted
    )


def raw(header: str | bytes, payload: str | bytes, key: Any = None) -> str:
    """Return a token of exactly these texts, with a valid signature of the RSA key."""
    signed = b".".join(_segment(part) for part in (header, payload))
    signature = jwt.get_algorithm_by_name("RS256").sign(signed, key or KEYS["RS256"])
    return (signed + b"." + _segment(signature)).decode()


def unsigned(header: Mapping[str, Any], body: Mapping[str, Any], signature: str = "") -> str:
    """Return a token with an invented signature."""
    parts = (_segment(json.dumps(part)).decode() for part in (header, body))
    return ".".join((*parts, signature))


def _segment(part: str | bytes) -> bytes:
    data = part.encode() if isinstance(part, str) else part
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Endpoint:
    """A real HTTP endpoint of public keys; it counts requests, and its answer can be changed."""

    def __init__(self, keys: Mapping[str, Any] | None = None) -> None:
        self.body = json.dumps(key_set(**KEYS) if keys is None else keys).encode()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.fetches = 0
        self.asked = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback."""
        app = web.Application()
        app.router.add_get("/keys", self._answer)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base = f"http://{host}:{port}"
        self.url = f"{self.base}/keys"
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        self.asked.set()
        await self.held.wait()
        return web.Response(body=self.body, status=self.status, headers=self.headers)

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        return web.Response(body=json.dumps(key_set(**KEYS)).encode())
