"""Makes one bucket, unless it is there, and prints the names of all.

usage: bucket.py NAME ENDPOINT
"""

import sys

from aistore import Client

name, endpoint = sys.argv[1:]
client = Client(endpoint)
client.bucket(name).create(exist_ok=True)
print(" ".join(sorted(bucket.name for bucket in client.cluster().list_buckets("ais"))))
