"""Makes, asks for, lists and removes buckets through all given gateways until standard input ends.

usage: writer.py PREFIX ENDPOINT...

Prints a line for each bucket, then one JSON object: how many buckets were made, and how long the slowest call took.
An exception of the SDK ends it with an exit code other than 0: none may reach the user's code, also not while the
primary changes.
"""

import json
import sys
import threading
import time

from aistore import Client


def main():
    prefix, endpoints = sys.argv[1], sys.argv[2:]
    clients = [Client(endpoint) for endpoint in endpoints]
    ended = threading.Event()

    def wait_for_end():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    count, slowest_s = 0, 0.0
    while not ended.is_set():
        name = f"{prefix}-{count}"
        calls = [
            lambda c: c.bucket(name).create(),
            lambda c: c.bucket(name).head(),
            lambda c: [b.name for b in c.cluster().list_buckets("ais")].index(name),
            lambda c: c.bucket(name).delete(),
        ]
        for step, call in enumerate(calls):
            begin = time.monotonic()
            call(clients[(count + step) % len(clients)])
            slowest_s = max(slowest_s, time.monotonic() - begin)
        count += 1
        print(name, flush=True)
    print(json.dumps({"buckets": count, "slowest_ms": round(slowest_s * 1000, 1)}))


main()
