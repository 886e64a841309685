"""Tokens: the accepted and the refused ones, with a real endpoint of keys."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from milepost.access.key_sets import KeySet
from milepost.access.tokens import LEEWAY_S, Tokens
from milepost.domain.errors import Unauthenticated
from milepost.domain.operation import Principal, Role
from milepost.domain.trust import issuers_from
from milepost.web.key_sets import UrlKeySet
from tests.unit.signing import (
    AUDIENCE,
    ISSUER,
    KEYS,
    NOW,
    Endpoint,
    claims,
    jwk,
    key_set,
    pem,
    raw,
    rsa_key,
    token,
    unsigned,
)

STRANGER, SHORT = rsa_key(), rsa_key(1024)
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())
GOOD_HEADER = '{"alg":"RS256","typ":"JWT","kid":"RS256"}'


class Verifier:
    """Tokens of one issuer, verified with the keys of a real endpoint."""

    def __init__(self, endpoint: Endpoint, **settings: Any) -> None:
        self.now, self.ticks = NOW, 0.0
        text = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["RS256", "ES256", "EdDSA"],
            "jwks_url": endpoint.url,
            **settings,
        }
        [issuer] = issuers_from(json.dumps([text]))
        self.keys = KeySet(
            ISSUER, UrlKeySet(endpoint.url), issuer.algorithms, clock=lambda: self.ticks
        )
        self.tokens = Tokens({ISSUER: (issuer, self.keys)}, clock=lambda: self.now)

    async def principal(self, text: str) -> Principal | None:
        """Return the principal of the token, or None if it is refused."""
        try:
            return (await self.tokens.verify(text)).principal
        except Unauthenticated:
            return None


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """The endpoint of the issuer."""
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def verifier(endpoint) -> AsyncIterator[Verifier]:
    """A verifier that trusts the issuer."""
    verifier = Verifier(endpoint)
    yield verifier
    await verifier.tokens.close()


@pytest.mark.parametrize("algorithm", KEYS)
async def test_valid_token_authenticates_its_subject(verifier, algorithm):
    """A token of each algorithm gives subject, roles and grants; its id names the credential."""
    body = claims(roles=["worker", "CALLER"], functions=["video.*"], jti="token-7")
    assert await verifier.principal(token(body, algorithm=algorithm)) == Principal(
        subject=f"{ISSUER}|alice",
        roles=frozenset({Role.CALLER, Role.WORKER}),
        credential_id=f"{ISSUER} token-7",
        functions=("video.*",),
    )


GOOD: dict[str, Callable[[], str]] = {
    "several audiences": lambda: token(claims(aud=["other", AUDIENCE])),
    "roles as words": lambda: token(claims(roles="caller other:role")),
    "role of another service": lambda: token(claims(roles=["CALLER", "billing"])),
    "type JWT": lambda: token(typ="JWT"),
    "type with its tree": lambda: token(typ="application/at+jwt"),
    "thumbprint": lambda: token(x5t="abc"),
    "expired within the leeway": lambda: token(claims(iat=NOW - 600, exp=NOW - LEEWAY_S + 1)),
    "begins within the leeway": lambda: token(claims(nbf=NOW + LEEWAY_S - 1)),
    "issued within the leeway": lambda: token(claims(iat=NOW + LEEWAY_S - 1)),
    "longest lifetime": lambda: token(claims(iat=NOW, exp=NOW + 86_400)),
    "nearly too large": lambda: token(claims(other="x" * 5_000)),
}


@pytest.mark.parametrize("name", GOOD)
async def test_valid_variations_are_accepted(verifier, name):
    """Every allowed variation is accepted, so that the refusals below have other causes."""
    principal = await verifier.principal(GOOD[name]())
    assert principal is not None
    assert principal.subject == f"{ISSUER}|alice"


def _flip(text: str, place: int) -> str:
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def _swap_signature(text: str, other: str) -> str:
    return ".".join((*text.split(".")[:2], other.split(".")[2]))


FORGED: dict[str, Callable[[], str]] = {
    # no signature, or one without proof
    "alg none": lambda: unsigned({"alg": "none", "typ": "JWT", "kid": "RS256"}, claims()),
    "alg None": lambda: unsigned({"alg": "None", "typ": "JWT", "kid": "RS256"}, claims(), "AA"),
    "alg none, signed": lambda: unsigned(
        {"alg": "none", "typ": "JWT", "kid": "RS256"}, claims(), token().split(".")[2]
    ),
    "alg empty": lambda: raw('{"alg":"","typ":"JWT","kid":"RS256"}', json.dumps(claims())),
    "alg missing": lambda: raw('{"typ":"JWT","kid":"RS256"}', json.dumps(claims())),
    "alg a list": lambda: raw('{"alg":["RS256"],"typ":"JWT","kid":"RS256"}', json.dumps(claims())),
    "alg in small letters": lambda: raw(
        '{"alg":"rs256","typ":"JWT","kid":"RS256"}', json.dumps(claims())
    ),
    "signature empty": lambda: ".".join((*token().split(".")[:2], "")),
    "signature of zeros": lambda: unsigned(
        {"alg": "ES256", "typ": "JWT", "kid": "ES256"}, claims(), "A" * 86
    ),
    "signature of another token": lambda: _swap_signature(token(), token(claims(sub="bob"))),
    "signature changed": lambda: _flip(token(), -9),
    "signature with spare bits": lambda: token()[:-1] + chr(ord(token()[-1]) + 1),
    "payload changed": lambda: _flip(token(), len(token().split(".")[0]) + 30),
    "header changed": lambda: _flip(token(), 12),
    # confusion of algorithms and keys
    "public key as HMAC secret": lambda: _hmac(pem(KEYS["RS256"])),
    "JWK as HMAC secret": lambda: _hmac(json.dumps(jwk(KEYS["RS256"])).encode()),
    "empty HMAC secret": lambda: _hmac(b""),
    "HMAC with another kid": lambda: _hmac(pem(KEYS["ES256"]), kid="ES256"),
    "RSA key for PSS, which is not allowed": lambda: token(
        key=KEYS["RS256"], algorithm="PS256", kid="RS256"
    ),
    "RSA key for RS512, which is not allowed": lambda: token(
        key=KEYS["RS256"], algorithm="RS512", kid="RS256"
    ),
    "RSA signature under the id of the EC key": lambda: token(kid="ES256"),
    "EC signature under the id of the RSA key": lambda: token(algorithm="ES256", kid="RS256"),
    "EdDSA signature under the id of the EC key": lambda: token(algorithm="EdDSA", kid="ES256"),
    "key of a stranger": lambda: token(key=STRANGER),
    "EC key of a stranger": lambda: token(
        key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"
    ),
    "wrong curve": lambda: token(key=OTHER_CURVE, algorithm="ES384", kid="ES256"),
    # hostile key ids
    "kid missing": lambda: token(kid=...),
    "kid empty": lambda: token(kid=""),
    "kid unknown": lambda: token(kid="unknown"),
    "kid a path": lambda: token(key=STRANGER, kid="../../../../dev/null"),
    "kid an address": lambda: token(key=STRANGER, kid="https://evil.example/keys"),
    "kid SQL": lambda: token(key=STRANGER, kid="x' UNION SELECT 'secret' --"),
    "kid very long": lambda: token(kid="k" * 1_000),
    "kid with NUL": lambda: token(kid="RS256\0"),
    "kid a number": lambda: raw('{"alg":"RS256","typ":"JWT","kid":7}', json.dumps(claims())),
    # keys, addresses and extensions in the header
    "embedded jwk": lambda: token(key=STRANGER, jwk=jwk(STRANGER)),
    "embedded jwk, signed by the issuer": lambda: token(jwk=jwk(KEYS["RS256"])),
    "jku": lambda: token(jku="https://evil.example/keys"),
    "x5u": lambda: token(x5u="https://evil.example/chain.pem"),
    "x5c": lambda: token(x5c=["MIIB"]),
    "crit": lambda: raw(
        '{"alg":"RS256","typ":"JWT","kid":"RS256","crit":["exp"],"exp":1}', json.dumps(claims())
    ),
    "crit empty": lambda: raw(
        '{"alg":"RS256","typ":"JWT","kid":"RS256","crit":[]}', json.dumps(claims())
    ),
    "crit unknown": lambda: raw(
        '{"alg":"RS256","typ":"JWT","kid":"RS256","crit":["policy"],"policy":"x"}',
        json.dumps(claims()),
    ),
    "b64 false": lambda: raw(
        '{"alg":"RS256","typ":"JWT","kid":"RS256","b64":false}', json.dumps(claims())
    ),
    "compressed": lambda: token(zip="DEF"),
    "nested": lambda: token(cty="JWT"),
    # type
    "typ missing": lambda: raw('{"alg":"RS256","kid":"RS256"}', json.dumps(claims())),
    "typ of a logout": lambda: token(typ="logout+jwt"),
    "typ of a DPoP proof": lambda: token(typ="dpop+jwt"),
    "typ a number": lambda: raw('{"alg":"RS256","typ":1,"kid":"RS256"}', json.dumps(claims())),
    # issuer and audience
    "issuer of another": lambda: token(claims(iss="https://evil.example")),
    "issuer with a slash": lambda: token(claims(iss=ISSUER + "/")),
    "issuer missing": lambda: token(claims(iss=...)),
    "issuer a list": lambda: _payload({**claims(), "iss": [ISSUER]}),
    "audience of another": lambda: token(claims(aud="other")),
    "audience a part": lambda: token(claims(aud=AUDIENCE + "-test")),
    "audience missing": lambda: token(claims(aud=...)),
    "audience empty": lambda: token(claims(aud=[])),
    "audience with numbers": lambda: token(claims(aud=[AUDIENCE, 7])),
    "audience an object": lambda: token(claims(aud={AUDIENCE: True})),
    # time
    "expired": lambda: token(claims(iat=NOW - 600, exp=NOW - LEEWAY_S)),
    "expired long ago": lambda: token(claims(iat=1, exp=2)),
    "exp missing": lambda: token(claims(exp=...)),
    "exp a text": lambda: _payload(claims(exp=str(NOW + 600))),
    "exp true": lambda: _payload(claims(exp=True)),
    "exp infinite": lambda: raw(
        GOOD_HEADER, json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": Infinity')
    ),
    "exp beyond numbers": lambda: raw(
        GOOD_HEADER, json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1e999')
    ),
    "exp of 400 digits": lambda: _payload(claims(exp=10**400)),
    "not yet valid": lambda: token(claims(nbf=NOW + LEEWAY_S + 1)),
    "nbf a text": lambda: _payload(claims(nbf="soon")),
    "issued in the future": lambda: token(claims(iat=NOW + LEEWAY_S + 1, exp=NOW + 900)),
    "iat missing": lambda: token(claims(iat=...)),
    "lifetime too long": lambda: token(claims(iat=NOW - 10, exp=NOW + 86_400)),
    "expires before it was issued": lambda: token(claims(iat=NOW + 30, exp=NOW + 20)),
    # subject, roles, functions
    "sub missing": lambda: token(claims(sub=...)),
    "sub a number": lambda: _payload(claims(sub=7)),
    "sub a list": lambda: _payload(claims(sub=["alice"])),
    "sub empty": lambda: token(claims(sub="")),
    "sub blank": lambda: token(claims(sub="  ")),
    "sub with a line end": lambda: token(claims(sub="alice\nroot")),
    "sub with NUL": lambda: token(claims(sub="alice\0")),
    "sub padded": lambda: token(claims(sub=" alice")),
    "sub with a zero-width space": lambda: token(claims(sub="ali\u200bce")),
    "sub with a right-to-left override": lambda: token(claims(sub="\u202eecila")),
    "sub with a filler": lambda: token(claims(sub="alice\u3164")),
    "sub decomposed": lambda: token(claims(sub="jose\u0301")),
    "sub very long": lambda: token(claims(sub="a" * 300)),
    "roles missing": lambda: token(claims(roles=...)),
    "roles empty": lambda: token(claims(roles=[])),
    "roles unknown": lambda: token(claims(roles=["superuser"])),
    "role with a dotless i": lambda: token(claims(roles=["adm\u0131n"])),
    "role with a long s": lambda: token(claims(roles="\u017fcaller call\u0435r")),
    "role with a Kelvin sign": lambda: token(claims(roles=["wor\u212aer"])),
    "role padded": lambda: token(claims(roles=[" ADMIN", "ADMIN\n"])),
    "roles parted by another blank": lambda: token(claims(roles="a\u00a0ADMIN\u2003b")),
    "roles parted by a line end": lambda: token(claims(roles="a\nADMIN")),
    "type with a Kelvin sign": lambda: token(typ="jwt\u212a"),
    "roles a number": lambda: token(claims(roles=1)),
    "roles an object": lambda: token(claims(roles={"ADMIN": True})),
    "roles nested": lambda: token(claims(roles=[["ADMIN"]])),
    "functions a number": lambda: token(claims(functions=1)),
    "functions with spaces": lambda: token(claims(functions=["video *"])),
    "functions with two stars": lambda: token(claims(functions=["**"])),
    "functions too many": lambda: token(claims(functions=[f"f{n}" for n in range(101)])),
    "bound to a key of its holder": lambda: token(claims(cnf={"jkt": "x"})),
    # form
    "claim twice": lambda: raw(
        GOOD_HEADER, json.dumps(claims()).replace('"sub"', '"sub": "root", "sub"')
    ),
    "header twice": lambda: raw(
        '{"alg":"none","alg":"RS256","typ":"JWT","kid":"RS256"}', json.dumps(claims())
    ),
    "payload a list": lambda: raw(GOOD_HEADER, json.dumps([claims()])),
    "payload no JSON": lambda: raw(GOOD_HEADER, "{not json"),
    "payload no UTF-8": lambda: raw(GOOD_HEADER, b"\xff\xfe"),
    "payload NaN": lambda: raw(GOOD_HEADER, json.dumps(claims(x=float("nan")))),
    "payload deep": lambda: raw(GOOD_HEADER, "[" * 4_000),
    "huge": lambda: token(claims(other="x" * 8_192)),
    "truncated in the signature": lambda: token()[:-20],
    "truncated in the payload": lambda: token()[:60],
    "two segments": lambda: token().rpartition(".")[0],
    "four segments": lambda: token() + ".AA",
    "five segments, encrypted": lambda: token() + ".AA.AA",
    "padded": lambda: token() + "=",
    "with spaces": lambda: token().replace(".", ". "),
    "as bytes of another alphabet": lambda: token().replace("_", "/").replace("-", "+") + "+",
    "empty": lambda: "",
    "dots": lambda: "..",
    "line end": lambda: token() + "\n",
}


def _payload(body: dict[str, Any]) -> str:
    return raw(GOOD_HEADER, json.dumps(body))


def _hmac(secret: bytes, kid: str = "RS256") -> str:
    """Return a token that is signed by HMAC with a public text."""
    signed = unsigned({"alg": "HS256", "typ": "JWT", "kid": kid}, claims()).rstrip(".")
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = mac.sign(signed.encode(), secret)
    return signed + "." + jwt.utils.base64url_encode(signature).decode()


def test_forgeries_are_many():
    """The table of forgeries has at least sixty different tokens."""
    assert len({make() for make in FORGED.values()}) >= 60


@pytest.mark.parametrize("name", FORGED)
async def test_forged_and_malformed_tokens_are_refused(verifier, name):
    """No token that is forged, malformed, for another audience, or out of its time is accepted."""
    assert await verifier.principal(token()) is not None
    assert await verifier.principal(FORGED[name]()) is None


async def test_token_is_accepted_until_its_end_and_the_leeway(verifier):
    """A token is accepted until a minute after its end, and never again."""
    text = token(claims(exp=NOW + 600))
    assert (await verifier.tokens.verify(text)).remaining == 600
    verifier.now = NOW + 600 + LEEWAY_S - 1
    assert (await verifier.tokens.verify(text)).remaining < 0
    verifier.now = NOW + 600 + LEEWAY_S
    assert await verifier.principal(text) is None


async def test_algorithm_must_be_on_the_list_of_the_issuer(endpoint):
    """A valid signature of an algorithm that is not configured for the issuer is refused."""
    verifier = Verifier(endpoint, algorithms=["EdDSA"])
    assert await verifier.principal(token(algorithm="EdDSA")) is not None
    assert await verifier.principal(token(algorithm="ES256")) is None
    assert await verifier.principal(token(algorithm="RS256")) is None


async def test_claims_are_those_that_are_configured(endpoint):
    """Subject, roles and functions come from the configured claims."""
    verifier = Verifier(
        endpoint,
        subject_claim="client_id",
        subject_prefix="",
        roles_claim="https://milepost/roles",
        functions_claim="work",
        lifetime_max_seconds=300,
    )
    body = claims(client_id="encoder", roles=..., work="video.* audio.*", exp=NOW + 200)
    body["https://milepost/roles"] = ["WORKER"]
    principal = await verifier.principal(token(body))
    assert principal is not None
    assert principal.subject == "encoder"
    assert principal.roles == {Role.WORKER}
    assert principal.functions == ("audio.*", "video.*")
    assert await verifier.principal(token({**body, "exp": NOW + 300})) is None


@pytest.mark.parametrize("token_id", [..., "", "x" * 65, "line\nend", 7])
async def test_token_without_a_usable_id_is_named_by_a_digest(verifier, token_id):
    """Without a jti, the id of the credential is the start of a digest, never the token."""
    text = _payload(claims(jti=token_id))
    principal = await verifier.principal(text)
    assert principal is not None
    name, _, digest = principal.credential_id.partition(" sha256:")
    assert name == ISSUER
    assert len(digest) == 16
    assert digest not in text


BAD_KEYS: dict[str, Callable[[], list[Any]]] = {
    "short RSA key": lambda: [jwk(SHORT, kid="RS256")],
    "key for encryption": lambda: [jwk(KEYS["RS256"], kid="RS256", use="enc")],
    "key for another algorithm": lambda: [jwk(KEYS["RS256"], kid="RS256", alg="RS512")],
    "key that may not verify": lambda: [jwk(KEYS["RS256"], kid="RS256", key_ops=["sign"])],
    "private key": lambda: [jwk(KEYS["RS256"], kid="RS256", d="AQAB")],
    "key without id": lambda: [jwk(KEYS["RS256"])],
    "shared secret": lambda: [{"kty": "oct", "k": "c2VjcmV0", "kid": "RS256"}],
    "number": lambda: [7],
    "broken key": lambda: [{"kty": "RSA", "n": "!", "e": 3, "kid": "RS256"}],
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_unfit_keys_are_not_used(endpoint, name):
    """A key that is weak, private, or for another use verifies no token."""
    endpoint.body = json.dumps(
        {"keys": [*BAD_KEYS[name](), *key_set(ES256=KEYS["ES256"])["keys"]]}
    ).encode()
    verifier = Verifier(endpoint)
    signer = SHORT if name == "short RSA key" else KEYS["RS256"]
    assert await verifier.principal(raw(GOOD_HEADER, json.dumps(claims()), signer)) is None
    assert await verifier.principal(token(algorithm="ES256")) is not None
