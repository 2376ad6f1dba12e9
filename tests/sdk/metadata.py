"""Cluster information, readiness and a bucket's life through every gateway.

usage: metadata.py PREFIX ENDPOINT...

Exits with 0 when the unmodified SDK was served as it expects, prints one JSON object.
"""

import json
import sys

from aistore import Client
from aistore.sdk.errors import AISError, ErrBckAlreadyExists, ErrBckNotFound


def expect(condition, what):
    if not condition:
        raise SystemExit(f"not as expected: {what}")


def refused(call, error):
    try:
        call()
    except error:
        return
    raise SystemExit(f"expected {error.__name__}")


def look(client, endpoint):
    cluster = client.cluster()
    info = cluster.get_info()
    expect(cluster.get_uuid() == info.uuid and len(info.uuid) >= 9, f"uuid at {endpoint}")
    expect(info.proxy_si.daemon_id in info.pmap, f"the primary is in the map at {endpoint}")
    expect(cluster.get_primary_url() == info.proxy_si.public_net.direct_url, f"primary URL at {endpoint}")
    expect(cluster.is_ready(), f"ready at {endpoint}")
    expect(cluster.list_running_jobs() == [], f"no jobs at {endpoint}")
    return info


def live(clients, prefix, number):
    """A bucket made through one gateway is there for the very next call through any other."""
    name = f"{prefix}-{number}"
    through = clients[number % len(clients)]
    through.bucket(name).create()
    refused(lambda: through.bucket(name).create(), ErrBckAlreadyExists)
    through.bucket(name).create(exist_ok=True)
    for client in clients:
        client.bucket(name).head()
        listed = [bucket.name for bucket in client.cluster().list_buckets("ais")]
        expect(name in listed, f"{name} in the list")
    name = renamed(clients, through, name)
    last = clients[(number + 1) % len(clients)]
    last.bucket(name).delete()
    refused(lambda: last.bucket(name).delete(), ErrBckNotFound)
    last.bucket(name).delete(missing_ok=True)
    refused(lambda: through.bucket(name).head(), AISError)
    listed = [bucket.name for bucket in through.cluster().list_buckets("ais")]
    expect(name not in listed, f"{name} not in the list")


def renamed(clients, through, name):
    """Another name, known to every gateway; the job that AIStore would run has ended wherever one asks."""
    bucket = through.bucket(name)
    job = bucket.rename(f"{name}-moved")
    for client in clients:
        result = client.job(job_id=job, job_kind="move-bck").wait(timeout=30, verbose=False)
        expect(result.success, f"{job} has ended well")
        client.bucket(f"{name}-moved").head()
        refused(lambda: client.bucket(name).head(), AISError)
    refused(lambda: through.bucket(name).rename(f"{name}-again"), ErrBckNotFound)
    return f"{name}-moved"


def main():
    prefix, endpoints = sys.argv[1], sys.argv[2:]
    clients = [Client(endpoint) for endpoint in endpoints]
    infos = [look(client, endpoint) for client, endpoint in zip(clients, endpoints)]
    expect(len({info.uuid for info in infos}) == 1, "one uuid")
    expect(len({info.proxy_si.daemon_id for info in infos}) == 1, "one primary")
    for number in range(len(clients)):
        live(clients, prefix, number)
    first = infos[0]
    told = {
        "uuid": first.uuid,
        "primary": first.proxy_si.daemon_id,
        "gateways": len(first.pmap),
        "targets": len(first.tmap),
    }
    print(json.dumps(told))


main()
