"""Clients' tokens: allowed, forbidden, revoked, through every gateway.

usage: tokens.py live SECRET ENDPOINT...     turns tokens on, uses and revokes some; prints the revoked one
       tokens.py after SECRET TOKEN ENDPOINT...     the revoked token is still revoked, others still work

The tokens are made here, as an AuthN server would make them.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time

import requests
from aistore import Client
from aistore.sdk.errors import AISError

SHOW_CLUSTER, LIST_BUCKETS, HEAD_BUCKET = 1 << 13, 1 << 12, 1 << 8


def expect(condition, what):
    if not condition:
        raise SystemExit(f"not as expected: {what}")


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(secret, **claims):
    claims.setdefault("exp", int(time.time()) + 3600)
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(secret.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join(parts + [encoded(signature)])


def client(endpoint, with_token=None):
    """As a user does it: the SDK takes the token from the environment."""
    os.environ.pop("AIS_AUTHN_TOKEN", None)
    if with_token:
        os.environ["AIS_AUTHN_TOKEN"] = with_token
    return Client(endpoint)


def status_of(call):
    try:
        call()
    except AISError as error:
        return error.status_code
    return 200


def names(endpoint, with_token=None):
    return lambda: client(endpoint, with_token).cluster().list_buckets("ais")


def enable(endpoint, with_token):
    headers = {"Authorization": f"Bearer {with_token}"} if with_token else {}
    url = f"{endpoint}/v1/cluster/set-config?auth.client_auth_required=true"
    return requests.put(url, headers=headers, timeout=20).status_code


def live(secret, endpoints):
    first, last = endpoints[0], endpoints[-1]
    admin = token(secret, sub="root", admin=True)
    user = token(secret, sub="alice", clusters=[{"id": "", "perm": str(SHOW_CLUSTER | LIST_BUCKETS | HEAD_BUCKET)}])
    expect(enable(first, None) == 401, "nobody shuts himself out")
    expect(enable(first, user) == 401, "only an administrator turns tokens on")
    expect(status_of(names(last)) == 200, "no token is needed before")
    expect(enable(first, admin) == 200, "turned on")
    client(first, admin).bucket("guarded").create()
    stranger = token("another secret", sub="eve", admin=True)
    old = token(secret, sub="alice", admin=True, exp=int(time.time()) - 1)
    for endpoint in endpoints:
        expect(status_of(names(endpoint)) == 401, f"no token at {endpoint}")
        expect(status_of(names(endpoint, stranger)) == 401, f"another issuer's token at {endpoint}")
        expect(status_of(names(endpoint, old)) == 401, f"an expired token at {endpoint}")
        alice = client(endpoint, user)
        expect([b.name for b in alice.cluster().list_buckets("ais")] == ["guarded"], f"allowed at {endpoint}")
        alice.bucket("guarded").head()
        expect(status_of(lambda: alice.bucket("more").create()) == 403, f"forbidden at {endpoint}")
        expect(alice.cluster().is_ready(), f"ready at {endpoint}")
    body = {"tokens": [user]}
    revoked = requests.delete(
        f"{last}/v1/tokens", json=body, headers={"Authorization": f"Bearer {admin}"}, timeout=20
    )
    expect(revoked.status_code == 200, f"revoked: {revoked.text}")
    for endpoint in endpoints:
        expect(status_of(names(endpoint, user)) == 401, f"revoked at {endpoint}, at once")
        expect(status_of(names(endpoint, admin)) == 200, f"others go on at {endpoint}")
    print(json.dumps({"revoked": user}))


def after(secret, revoked, endpoints):
    admin = token(secret, sub="root", admin=True)
    for endpoint in endpoints:
        expect(status_of(names(endpoint)) == 401, f"tokens are still needed at {endpoint}")
        expect(status_of(names(endpoint, revoked)) == 401, f"still revoked at {endpoint}")
        expect(status_of(names(endpoint, admin)) == 200, f"others still work at {endpoint}")
    print(json.dumps({"gateways": len(endpoints)}))


def main():
    mode, secret, *rest = sys.argv[1:]
    if mode == "live":
        live(secret, rest)
    else:
        after(secret, rest[0], rest[1:])


main()
