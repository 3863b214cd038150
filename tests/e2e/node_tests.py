#!/usr/bin/env python3
"""Tests that need a node of their own: node_tests.py CASE, or --list.

Each starts build/leat with the settings and, where needed, the file systems it is about.
"""
import json
import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import raw_protocol  # noqa: E402
from raw_protocol import expect  # noqa: E402

CASES = {}
DESCRIBE_CONFIGS, ALTER_CONFIGS = 32, 44
RESOURCE_TOPIC, RESOURCE_BROKER = 2, 4


def case(function):
    CASES[function.__name__] = function
    return function


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Node(harness.Leat):
    """A node with an administrator's view of it."""

    def __init__(self, directory, *settings, conf=None, shards=2):
        super().__init__(directory, [f"core.shards={shards}", "wal.size=64m", *settings])
        self.conf = conf

    def command(self):
        return super().command() + (["-c", self.conf] if self.conf else [])

    def http(self, path, method="GET", body=None):
        """(status, text); refusals are answers too."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method,
                                         data=body.encode() if body is not None else None)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def set(self, key, value):
        expect(self.http(f"/v1/config/{key}", "PUT", value)[0], 200, f"live change of {key}")

    def key(self, key):
        return json.loads(self.http(f"/v1/config/{key}")[1])

    def metric(self, name):
        """The sum of a metric over its labels."""
        text = self.http("/metrics")[1]
        values = [float(line.rpartition(" ")[2]) for line in text.split("\n")
                  if line.startswith((name + " ", name + "{"))]
        if not values:
            raise AssertionError(f"there is no metric {name}")
        return sum(values)

    def shards(self):
        return json.loads(self.http("/v1/status")[1])["shards"]

    def logged(self, event):
        with open(self.log, errors="replace") as f:
            return [line for line in f if f" event={event} " in line]

    def broker(self):
        return raw_protocol.Broker(self.address)


def described(broker, kind, name, key):
    got = broker.call(DESCRIBE_CONFIGS, 4, {"IncludeSynonyms": True, "IncludeDocumentation": True, "Resources": [
        {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": [key]}]})["Results"][0]
    expect(got["ErrorCode"], 0, f"DescribeConfigs of {name}")
    return got["Configs"][0]


def altered(broker, kind, name, *changes):
    return broker.call(ALTER_CONFIGS, 1, {"ValidateOnly": False, "Resources": [
        {"ResourceType": kind, "ResourceName": name,
         "Configs": [{"Name": k, "ConfigOperation": op, "Value": v} for k, op, v in changes]}]})["Responses"][0]


# ---- configuration of a running node ----
@case
def live_defaults_reach_topics(work):
    """Topics that exist follow a live change of the broker's defaults, on every shard."""
    node = Node(work)
    node.start()
    broker = node.broker()
    plain = [broker.topic(partitions=4, prefix=f"plain{i}") for i in range(3)]
    own = broker.topic(partitions=4, configs=[("retention.ms", "7777"), ("max.message.bytes", "500000")])

    def retention(topic):
        return described(broker, RESOURCE_TOPIC, topic.name, "retention.ms")["Value"]

    def refused(topic, partition):
        return topic.produce_raw(raw_protocol.kmsg.batch([os.urandom(3000)]), partition)["ErrorCode"]

    expect({retention(t) for t in plain}, {"604800000"}, "retention.ms before")
    node.set("log.retention.hours", "5")
    wait_for("the topics follow", lambda: {retention(t) for t in plain} == {"18000000"})
    expect(retention(own), "7777", "an override stays")
    # Every owner goes by it: each partition refuses what is now too large.
    node.set("message.max.bytes", "2000")
    wait_for("all partitions refuse it", lambda: {refused(t, p) for t in plain for p in range(4)} == {10})
    expect({refused(own, p) for p in range(4)}, {0}, "with an override of max.message.bytes")
    # By Kafka's own API; the topic made afterwards has it at once.
    got = altered(broker, RESOURCE_BROKER, "0", ("message.max.bytes", 0, "100000"), ("log.retention.ms", 0, "4444"))
    expect(got["ErrorCode"], 0, f"AlterConfigs ({got['ErrorMessage']})")
    wait_for("all partitions take it", lambda: {refused(t, p) for t in plain for p in range(4)} == {0})
    expect({retention(t) for t in plain + [broker.topic()]}, {"4444"}, "retention.ms after AlterConfigs")
    expect(node.stop(), 0, "exit code")
    node.start()
    expect({retention(t) for t in plain}, {"4444"}, "a stored change after a restart")
    expect(altered(broker, RESOURCE_BROKER, "0", ("log.retention.ms", 1, None))["ErrorCode"], 0, "delete")
    wait_for("the topics follow again", lambda: {retention(t) for t in plain} == {"604800000"})
    expect(node.stop(), 0, "exit code")


@case
def many_topics_follow_while_others_change(work):
    """More topics than one step takes, with topics made and deleted meanwhile."""
    node = Node(work)
    node.start()
    broker = node.broker()
    names = [f"many-{i:04}" for i in range(700)]
    got = broker.call(raw_protocol.CREATE_TOPICS, 7, {"timeoutMs": 60000, "Topics": [
        {"Name": n, "NumPartitions": 1, "ReplicationFactor": -1} for n in names]})
    expect({t["ErrorCode"] for t in got["Topics"]}, {0}, "create")
    for i in range(20):
        node.set("log.segment.bytes", str(2 << 20 | i))
        broker.topic(prefix="meanwhile")
        broker.call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [{"Name": names.pop(), "TopicId": bytes(16)}]})
    wanted = str(2 << 20 | 19)
    wait_for("all topics follow the last change", lambda: {
        described(broker, RESOURCE_TOPIC, n, "segment.bytes")["Value"] for n in names[::50]} == {wanted})
    node.set("log.segment.bytes", "3000000")  # a round may be under way when the node stops
    expect(node.stop(), 0, "exit code")


@case
def reload_keeps_live_changes(work):
    """SIGHUP takes what changed in the files; see config_reload."""
    conf = os.path.join(work, "leat.conf")

    def files_say(text):
        with open(conf, "w") as f:
            f.write(text)

    def reload():
        before = len(node.logged("config_reload_done"))
        node.process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: len(node.logged("config_reload_done")) > before)
        return node.logged("config_reload_done")[-1]

    files_say("store.retry = 700ms\nstore.delete_delay = 40s\n")
    node = Node(work, conf=conf)
    node.start()
    node.set("store.retry", "900ms")
    expect("changed=0 kept=1 needs_restart=0" in reload(), True, "nothing new in the files")
    expect(node.key("store.retry")["plain"], "900", "the live change stays")
    files_say("store.retry = 700ms\nstore.delete_delay = 50s\nwal.segment_bytes = 4m\n")
    expect("changed=1 kept=1 needs_restart=1" in reload(), True, "another key changed")
    expect((node.key("store.retry")["plain"], node.key("store.delete_delay")["plain"]), ("900", "50000"), "values")
    expect(any("key=wal.segment_bytes result=needs_restart" in line for line in node.logged("config_reloaded")), True,
           "the key that needs a restart is named")
    files_say("store.retry = 800ms\n")
    reload()
    expect(node.key("store.retry")["plain"], "800", "an edit of the key itself wins")
    expect(node.key("store.retry")["source"], "file", "its source")
    files_say("no.such.key = 1\n")
    node.process.send_signal(signal.SIGHUP)
    wait_for("the refusal", lambda: node.logged("config_reload_refused"))
    expect(node.key("store.retry")["plain"], "800", "a refused reload changes nothing")
    expect(node.stop(), 0, "exit code")


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CASES))
        return 0
    if len(sys.argv) != 2 or sys.argv[1] not in CASES:
        print(__doc__)
        return 2
    work = os.environ.get("E2E_TMP") or tempfile.mkdtemp(prefix="leat-node-")
    CASES[sys.argv[1]](work)
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
