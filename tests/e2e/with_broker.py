#!/usr/bin/env python3
"""with_broker.py leat|kafka COMMAND...: runs a command with ADDRESS replaced by a broker of its own."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402


def main():
    kind, command = sys.argv[1], sys.argv[2:]
    directory = tempfile.mkdtemp(prefix="leat-with-")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    broker = harness.Kafka(directory) if kind == "kafka" else harness.Leat(directory)
    try:
        broker.start()
        code = subprocess.call([part.replace("ADDRESS", broker.address) for part in command])
    finally:
        stopped = broker.stop()
    if kind == "leat" and stopped != 0:
        print(f"the broker ended with {stopped}; its log is {broker.log}")
        code = code or 1
    if code == 0:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"log of the broker: {broker.log}")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except harness.Missing as problem:
        sys.exit(f"{problem}\nwith_broker: 0 passed, 1 failed")
