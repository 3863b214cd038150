#!/usr/bin/env python3
"""Random messages of every version through Kafka's own Java classes and back: the bytes must be
the same. Usage: codec_peer.py LEAT-SCHEMA [SEED [N]]; N messages per version."""
import os
import subprocess
import sys

import kafka_jar


def main():
    schema = sys.argv[1]
    seed, n = (sys.argv[2:] + ["1", "20"][len(sys.argv[2:]):])[:2]
    jars = [kafka_jar.fetch(a) for a in
            (kafka_jar.CLIENTS, kafka_jar.COORDINATOR, kafka_jar.SLF4J)]
    samples = subprocess.run([schema, "--samples", seed, n], stdout=subprocess.PIPE, check=True)
    peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "CodecPeer.java")
    done = subprocess.run(["java", "-cp", ":".join(jars), peer], input=samples.stdout,
                          stdout=subprocess.PIPE)
    lines = done.stdout.decode().splitlines()
    for line in lines[:20]:
        print(line[:2000])
    if len(lines) > 20:
        print(lines[-1])
    sys.exit(done.returncode)


main()
