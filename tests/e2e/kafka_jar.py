"""Jars of Apache Kafka 4.4.0, fetched once through Maven into the cache folder.

The cache is $LEAT_CACHE, or ~/.cache/leat. A jar that cannot be had is an error, never a skip."""
import json
import os
import re
import subprocess
import sys
import zipfile

VERSION = "4.4.0"
CLIENTS = "org.apache.kafka:kafka-clients:" + VERSION
COORDINATOR = "org.apache.kafka:kafka-group-coordinator:" + VERSION
SLF4J = "org.slf4j:slf4j-api:1.7.36"


def fetch(artifact):
    """Path of the jar GROUP:NAME:VERSION."""
    cache = os.environ.get("LEAT_CACHE") or os.path.expanduser("~/.cache/leat")
    os.makedirs(cache, exist_ok=True)
    name, version = artifact.split(":")[1:3]
    jar = os.path.join(cache, "%s-%s.jar" % (name, version))
    if not os.path.exists(jar):
        done = subprocess.run(["mvn", "-q", "-B", "dependency:copy", "-Dartifact=" + artifact,
                               "-DoutputDirectory=" + cache], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, cwd=cache)
        if done.returncode != 0 or not os.path.exists(jar):
            sys.exit("cannot fetch %s through Maven (status %d):\n%s"
                     % (artifact, done.returncode, done.stdout))
    return jar


def definitions(jar):
    """The message definitions in a jar: name -> parsed JSON."""
    found = {}
    with zipfile.ZipFile(jar) as z:
        for path in z.namelist():
            if path.startswith("common/message/") and path.endswith(".json"):
                # The files are JSON with // comments.
                text = re.sub(r"^\s*//.*$", "", z.read(path).decode(), flags=re.M)
                text = re.sub(r"(?<=[\s,{\[])//[^\"\n]*$", "", text, flags=re.M)
                message = json.loads(text)
                found[message["name"]] = message
    if not found:
        sys.exit("no message definitions in " + jar)
    return found
