"""What the tests of the Python clients share."""
import os
import random
import sys
import time
import uuid

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def fresh(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:200]}, expected {str(wanted)[:200]}")


def eventually(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def sample_records(count, large_at):
    """[(key, value, headers, timestamp)] with every kind of key, value and header."""
    chance = random.Random(2)
    records = []
    for i in range(count):
        key = None if i % 5 == 0 else b"" if i % 9 == 0 else b"key-%d" % i
        value = None if i % 7 == 0 else b"" if i % 11 == 0 else b"value %d " % i * (i % 60)
        if i == large_at:
            value = chance.randbytes(900 << 10)
        headers = [("number", b"%d" % i), ("number", b""), ("none", None)] if i % 4 == 0 else []
        records.append((key, value, headers, 1_700_000_000_000 + i))
    return records


def main(cases):
    address, name = sys.argv[1:3]
    cases[name](address)
    # Clients leave threads behind that would wait for time-outs.
    sys.stdout.flush()
    os._exit(0)
