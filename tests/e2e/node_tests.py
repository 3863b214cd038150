#!/usr/bin/env python3
"""Tests that need a node of their own: node_tests.py CASE, or --list.

Each starts build/leat with the settings and, where needed, the file systems it is about.
"""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import raw_protocol  # noqa: E402
from raw_protocol import expect  # noqa: E402
from small_disk import FailingDisk, SmallDisk, enter_namespace  # noqa: E402

CASES = {}
DELETE_TOPICS, DESCRIBE_CONFIGS, ALTER_CONFIGS = 20, 32, 44
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

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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


def recover_from_store(node):
    """The stopped node's data directory is lost but for the store, and rebuilt from it."""
    data = f"{node.directory}/data"
    for entry in os.listdir(data):
        path = os.path.join(data, entry)
        if entry != "store":
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    done = subprocess.run(node.command() + ["--recover-from", f"file://{data}/store"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120)
    expect(done.returncode, 0, f"leat --recover-from: {done.stdout[-2000:]}")


# ---- leat.durability ----
@case
def durability_by_topic(work):
    """Shown, checked, changed at run time; each topic waits for its own."""
    node = Node(work, "object.linger=20ms", "wal.seal_age=60s")
    node.start()
    broker = node.broker()
    local = broker.topic(prefix="local")
    store = broker.topic(prefix="store", configs=[("leat.durability", "object")])
    got = described(broker, RESOURCE_TOPIC, store.name, "leat.durability")
    expect((got["Value"], got["ConfigSource"]), ("object", 1), "leat.durability of the topic")
    expect(described(broker, RESOURCE_TOPIC, local.name, "leat.durability")["Value"], "local", "the default")

    def put(topic):
        began, objects = time.monotonic(), node.metric("leat_object_batches_total")
        expect(topic.produce_raw(raw_protocol.kmsg.batch([b"x"]), 0)["ErrorCode"], 0, f"produce to {topic.name}")
        return time.monotonic() - began, node.metric("leat_object_batches_total") - objects

    expect(put(local)[1], 0, "uploads that a produce with local waited for")
    seconds, uploads = put(store)
    expect(uploads, 1, "uploads that a produce with object waited for")
    if seconds < 0.02:
        raise AssertionError(f"acknowledged after {seconds} s, before the linger was over")
    for value in ("replicated", "disk", ""):
        answer = altered(broker, RESOURCE_TOPIC, local.name, ("leat.durability", 0, value))
        expect(answer["ErrorCode"], 40, f"leat.durability={value!r}")
    expect(altered(broker, RESOURCE_TOPIC, local.name, ("leat.durability", 0, "object"))["ErrorCode"], 0, "to object")
    expect(put(local)[1], 1, "uploads after the change")
    expect(altered(broker, RESOURCE_TOPIC, local.name, ("leat.durability", 1, None))["ErrorCode"], 0, "back")
    expect(put(local)[1], 0, "uploads after the change back")
    node.set("leat.durability", "object")
    wait_for("topics follow the default", lambda: put(local)[1] == 1)
    expect(node.stop(), 0, "exit code")


@case
def log_in_memory(work):
    """wal.path=none: no file, only object, refused where it promises too little."""
    node = Node(work, "wal.path=none")
    try:
        node.start()
        raise AssertionError("it started with leat.durability=local")
    except harness.Missing as refusal:
        if "leat.durability = object" not in str(refusal):
            raise AssertionError(f"no remedy: {refusal}") from refusal
    node = Node(work, "wal.path=none", "leat.durability=object")
    node.start()
    broker = node.broker()
    topic = broker.topic()
    expect(topic.produce_raw(raw_protocol.kmsg.batch([b"x"]), 0)["ErrorCode"], 0, "produce")
    expect(altered(broker, RESOURCE_TOPIC, topic.name, ("leat.durability", 0, "local"))["ErrorCode"], 40, "local")
    expect(node.http("/v1/config/leat.durability", "PUT", "local")[0] // 100, 4, "status of a live change to local")
    node.kill()
    expect(os.path.exists(os.path.join(node.directory, "data", "wal")), False, "a folder for the log")
    node.start()
    expect(raw_protocol.Broker(node.address).call(2, 1, {"ReplicaId": -1, "Topics": [
        {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]})
        ["Topics"][0]["Partitions"][0]["Offset"], 1, "the end of the log after a kill")
    expect(node.stop(), 0, "exit code")


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
    got = altered(broker, RESOURCE_BROKER, "", ("log.retention.ms", 0, "5555"), ("log.segment.bytes", 0, "2000000"))
    expect(got["ErrorCode"], 0, f"AlterConfigs of the defaults of all brokers ({got['ErrorMessage']})")
    expect(node.stop(), 0, "exit code")
    node.start()
    expect({retention(t) for t in plain}, {"4444"}, "a stored change after a restart")
    segment = described(broker, RESOURCE_TOPIC, own.name, "segment.bytes")
    expect((segment["Value"], segment["ConfigSource"]), ("2000000", 3), "one for all brokers after a restart")
    for name, follows in (("0", "5555"), ("", "604800000")):
        expect(altered(broker, RESOURCE_BROKER, name, ("log.retention.ms", 1, None))["ErrorCode"], 0, "delete")
        wait_for("the topics follow again", lambda: {retention(t) for t in plain} == {follows})
    expect(node.stop(), 0, "exit code")


@case
def kept_configs(work):
    """Configs of groups and client metrics outlive a restart, and their number is bounded."""
    node = Node(work, "configs.max_kept=3")
    node.start()
    broker = node.broker()
    group, metrics, interval = 32, 16, "interval.ms"

    def value(kind, name, key):
        got = described(broker, kind, name, key)
        return got["Value"], got["ConfigSource"]

    def change(kind, name, *changes):
        return altered(broker, kind, name, *changes)["ErrorCode"]

    # What looks like a folder is a name.
    expect(change(group, "a", ("consumer.session.timeout.ms", 0, "46000")), 0, "one")
    expect(change(group, "a/b", ("consumer.session.timeout.ms", 0, "47000")), 0, "two")
    expect(change(metrics, "all", (interval, 0, "1000")), 0, "three")
    expect(change(group, "c", ("consumer.session.timeout.ms", 0, "46000")), 44, "one too many: POLICY_VIOLATION")
    expect(change(metrics, "all", (interval, 0, "2000")), 0, "in place of another")
    expect(change(group, "x" * 401, ("consumer.session.timeout.ms", 0, "46000")), 42, "too long a name")
    node.kill()
    node.start()
    for name, ms in (("a", "46000"), ("a/b", "47000")):
        expect(value(group, name, "consumer.session.timeout.ms"), (ms, 8), f"of {name} after a restart")
    expect(value(metrics, "all", interval), ("2000", 7), "of client metrics after a restart")
    expect(change(group, "a", ("consumer.session.timeout.ms", 1, None)), 0, "delete")
    expect(value(group, "a", "consumer.session.timeout.ms"), ("45000", 5), "it is deleted")
    expect(value(group, "a/b", "consumer.session.timeout.ms"), ("47000", 8), "and the other is not")
    expect(change(group, "c", ("consumer.session.timeout.ms", 0, "46000")), 0, "there is room again")
    expect(node.stop(), 0, "exit code")



@case
def unknown_configs(work):
    """Configs of brokers that nobody knows outlive a restart, and their number and size are bounded."""
    node = Node(work)
    node.start()
    broker = node.broker()

    def change(name, *changes):
        return altered(broker, RESOURCE_BROKER, name, *changes)["ErrorCode"]

    def source(name, key):
        found = described(broker, RESOURCE_BROKER, name, key)
        return found["Value"], found["ConfigSource"]

    expect(change("0", ("x" * 401, 0, "1")), 42, "too long a name")
    for name in ("0", ""):
        for first in range(0, 1000, 50):
            expect(change(name, *[(f"{i:04}" + "x" * 396, 0, "1" * 1000) for i in range(first, first + 50)]), 0, "fill")
        expect(change(name, ("one.more", 0, "1")), 44, "one too many: POLICY_VIOLATION")
        expect(change(name, ("0000" + "x" * 396, 0, "2")), 0, "in place of another")
        expect(change(name, ("message.max.bytes", 0, "1000111")), 0, "a known one beside them")
    node.kill()
    node.start()
    expect(source("0", "0999" + "x" * 396), (None, 2), "after a restart")
    expect(node.stop(), 0, "exit code")
    recover_from_store(node)
    node.start()
    for name, kind in (("0", 2), ("", 3)):
        expect(source(name, "0999" + "x" * 396), (None, kind), "after a recovery from the store")
        got = node.broker().call(32, 4, {"IncludeSynonyms": True, "Resources": [
            {"ResourceType": RESOURCE_BROKER, "ResourceName": name, "ConfigurationKeys": None}]})["Results"][0]
        expect((got["ErrorCode"], sum(c["Name"].endswith("xxx") for c in got["Configs"])), (0, 1000), "all of them")
        expect(change(name, ("0000" + "x" * 396, 1, None)), 0, "delete")
        expect(change(name, ("one.more", 0, "1")), 0, "there is room again")
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


# ---- bounds ----
def join_once(c, group, member="", metadata=b"m", version=3, session=10000):
    return c.call(raw_protocol.JOIN, version, {
        "GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": 10000, "MemberId": member,
        "GroupInstanceId": None, "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": metadata}]})


def sync_once(c, group, me, assignment=b"a"):
    return c.call(raw_protocol.SYNC, 3, {
        "GroupId": group, "GenerationId": me["GenerationId"], "MemberId": me["MemberId"], "GroupInstanceId": None,
        "Assignments": [{"MemberId": me["MemberId"], "Assignment": assignment}]})


def commit_once(c, group, topic, partitions, metadata):
    got = c.call(raw_protocol.OFFSET_COMMIT, 7, {
        "GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "GroupInstanceId": None, "Topics": [
            {"Name": topic.name, "Partitions": [
                {"PartitionIndex": p, "CommittedOffset": 1, "CommittedLeaderEpoch": -1, "CommittedMetadata": metadata}
                for p in partitions]}]})
    return set(raw_protocol.errors_in(got))


@case
def group_memory_is_bounded(work):
    """Joins and commits beyond group.memory get a retriable error; members that are there go on."""
    node = Node(work, "group.memory=1m", "group.initial.rebalance.delay.ms=0", shards=1)
    node.start()
    broker = node.broker()
    topic = broker.topic(partitions=60)
    broker.coordinator("g0")
    metadata, joined = bytes(60000), []
    with broker.connect() as c:
        while len(joined) < 100:
            group = f"g{len(joined)}"
            got = join_once(c, group, metadata=metadata)
            if got["ErrorCode"]:
                break
            joined.append((group, got))
            expect(sync_once(c, group, got)["ErrorCode"], 0, "SyncGroup")
        expect(got["ErrorCode"], 15, "JoinGroup beyond the bound: COORDINATOR_NOT_AVAILABLE")
        expect(10 < len(joined) <= 17, True, f"{len(joined)} members of 60 kB in 1 MiB")
        expect(node.metric("leat_group_memory_bytes") <= 1 << 20, True, "leat_group_memory_bytes")
        expect(node.metric("leat_group_requests_refused_total") > 0, True, "refusals are counted")
        expect(commit_once(c, "standalone", topic, range(60), "x" * 4000), {15}, "OffsetCommit beyond the bound")
        group, me = joined[0]
        beat = {"GroupId": group, "GenerationId": me["GenerationId"], "MemberId": me["MemberId"],
                "GroupInstanceId": None}
        expect(c.call(raw_protocol.HEARTBEAT, 3, beat)["ErrorCode"], 0, "Heartbeat")
        me = join_once(c, group, me["MemberId"], metadata)
        expect(me["ErrorCode"], 0, "a member joins again")
        expect(sync_once(c, group, me, bytes(200000))["ErrorCode"], 15, "an assignment beyond the bound")
        expect(sync_once(c, group, me)["ErrorCode"], 0, "one within it")
        # Room comes back when a member leaves.
        got = c.call(raw_protocol.LEAVE, 3, {"GroupId": group, "Members": [{"MemberId": me["MemberId"]}]})
        expect(got["ErrorCode"], 0, "LeaveGroup")
        expect(join_once(c, "another", metadata=metadata)["ErrorCode"], 0, "JoinGroup in its place")
        # The bound may be raised live.
        node.set("group.memory", "4m")
        expect(commit_once(c, "standalone", topic, range(60), "x" * 4000), {0}, "OffsetCommit after raising it")
    before = node.metric("leat_group_memory_bytes")
    expect(node.stop(), 0, "exit code")
    node.start()  # with 1m again: what is in the log is loaded all the same
    broker.coordinator("standalone")
    wait_for("what was loaded is counted", lambda: node.metric("leat_group_memory_bytes") > before * 0.9, 20)
    with broker.connect() as c:
        expect(commit_once(c, "standalone", topic, range(60), "x" * 4000), {0}, "a commit that adds nothing")
        expect(commit_once(c, "more", topic, range(60), "x" * 4000), {15}, "one that adds")
    expect(node.stop(), 0, "exit code")


@case
def group_size_is_bounded(work):
    """group.max.size as Kafka has it: members count, ids that were only handed out do not."""
    node = Node(work, "group.max.size=1", "group.initial.rebalance.delay.ms=0")
    node.start()
    broker = node.broker()
    broker.coordinator("g")
    with broker.connect() as c, broker.connect() as other:
        handed_out = [join_once(c, "g", version=5) for _ in range(2)]
        expect([j["ErrorCode"] for j in handed_out], [79, 79], "ids for an empty group")
        # The id that is not used yet holds the rebalance up until it is refused.
        c.send(raw_protocol.JOIN, 5, {
            "GroupId": "g", "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "GroupInstanceId": None,
            "MemberId": handed_out[0]["MemberId"], "ProtocolType": "consumer",
            "Protocols": [{"Name": "range", "Metadata": b"m"}]})
        time.sleep(0.2)
        expect(join_once(other, "g", handed_out[1]["MemberId"], version=5)["ErrorCode"], 81, "the second of the two")
        me = c.receive(raw_protocol.JOIN, 5)[1]
        expect(me["ErrorCode"], 0, "the first of the two")
        expect(sync_once(c, "g", me)["ErrorCode"], 0, "SyncGroup")
        for version in (3, 5):
            expect(join_once(other, "g", version=version)["ErrorCode"], 81, f"JoinGroup v{version} when full")
        expect(join_once(c, "g", me["MemberId"], version=5)["ErrorCode"], 0, "the member joins again")
    expect(node.stop(), 0, "exit code")


@case
def unused_member_ids_leave_nothing(work):
    """Ids are handed out to whoever asks (KIP-394); groups that come to nothing go."""
    node = Node(work, "group.min.session.timeout.ms=100", "offsets.retention.check.interval.ms=500")
    node.start()
    broker = node.broker()
    topic = broker.topic()
    broker.coordinator("x")
    with broker.connect() as c:
        for i in range(300):
            expect(join_once(c, f"unused-{i}", version=5, session=300)["ErrorCode"], 79, "JoinGroup")
        wait_for("the groups to go", lambda: node.metric("leat_groups") == 0)
        expect(node.metric("leat_group_memory_bytes"), 0, "leat_group_memory_bytes")
        # Offsets with a retention of their own expire, and their groups with them.
        got = c.call(raw_protocol.OFFSET_COMMIT, 3, {
            "GroupId": "short", "GenerationIdOrMemberEpoch": -1, "MemberId": "", "RetentionTimeMs": 700, "Topics": [
                {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 9}]}]})
        expect(raw_protocol.errors_in(got), [0], "OffsetCommit v3")
        expect(raw_protocol.committed(c, 7, "short", topic)[0], 9, "offset")
        wait_for("the offset to expire", lambda: raw_protocol.committed(c, 7, "short", topic)[0] == -1)
        wait_for("its group to go", lambda: node.metric("leat_groups") == 0)
    expect(node.stop(), 0, "exit code")
    node.start()
    broker.coordinator("short")
    expect(node.metric("leat_groups"), 0, "groups after a restart")
    expect(node.stop(), 0, "exit code")


@case
def offsets_of_a_deleted_topic(work):
    """A topic of the same name that is made later is another one: it begins without commits."""
    node = Node(work, "offsets.retention.check.interval.ms=500")
    node.start()
    broker = node.broker()
    topic = broker.topic()
    broker.coordinator("g")
    with broker.connect() as c:
        expect(commit_once(c, "g", topic, [0], "note"), {0}, "OffsetCommit")
        broker.call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [
            {"Name": topic.name, "TopicId": bytes(16)}]})
        broker.call(raw_protocol.CREATE_TOPICS, 7, {"timeoutMs": 10000, "Topics": [
            {"Name": topic.name, "NumPartitions": 1, "ReplicationFactor": 1}]})
        expect(raw_protocol.committed(c, 7, "g", topic)[0], -1, "offset of the topic made anew")
        wait_for("its group to go", lambda: node.metric("leat_groups") == 0)
    expect(node.stop(), 0, "exit code")


@case
def fetch_sessions_are_bounded(work):
    """By number and by memory; who finds no room goes on without a session."""
    node = Node(work, "fetch.session.memory=1m", "max.incremental.fetch.session.cache.slots=20", shards=1)
    node.start()
    broker = node.broker()
    topic = broker.topic(partitions=500)

    def session(c, partitions, session=0, epoch=0):
        request = topic.fetch_request(0, wait=0, session=session, epoch=epoch)
        one = request["Topics"][0]["Partitions"][0]
        request["Topics"][0]["Partitions"] = [dict(one, Partition=p) for p in partitions]
        got = c.call(raw_protocol.FETCH, 16, request)
        return got["ErrorCode"], got["SessionId"]

    with broker.connect() as c:
        made = [session(c, range(200)) for _ in range(15)]
        expect({e for e, _ in made}, {0}, "errors")
        kept = [s for _, s in made if s]
        expect(5 < len(kept) < 13, True, f"{len(kept)} sessions of 200 partitions in 1 MiB")
        expect([bool(s) for _, s in made], [True] * len(kept) + [False] * (15 - len(kept)), "then none")
        expect(node.metric("leat_fetch_session_memory_bytes") <= 1 << 20, True, "memory")
        expect(node.metric("leat_fetch_session_partitions"), 200 * len(kept), "partitions")
        expect(node.metric("leat_fetch_sessions_refused_total") > 0, True, "refusals are counted")
        expect(session(c, [], kept[0], 1), (0, kept[0]), "a session that is there goes on")
        expect(session(c, range(200, 500), kept[1], 1)[0], 70, "one that grows beyond the room is closed")
        for s in kept[2:]:
            expect(session(c, [], s, -1)[0], 0, "closing")
        few = [session(c, [0])[1] for _ in range(25)]
        expect([bool(s) for s in few], [True] * 19 + [False] * 6, "20 slots, one in use")
    expect(node.stop(), 0, "exit code")


def fetch_many(connection, topic, wanted, **options):
    """{partition: (error, number of records)} and the seconds it took."""
    request = topic.fetch_request(0, **options)
    one = request["Topics"][0]["Partitions"][0]
    request["Topics"][0]["Partitions"] = [dict(one, Partition=p, FetchOffset=o) for p, o in wanted]
    began = time.monotonic()
    got = connection.call(raw_protocol.FETCH, 16, request)
    took = time.monotonic() - began
    expect(got["ErrorCode"], 0, "Fetch")
    return {p["PartitionIndex"]: (p["ErrorCode"], sum(b[2] for b in raw_protocol.kmsg.batches(p["Records"] or b"")))
            for t in got["Responses"] for p in t["Partitions"]}, took


@case
def a_slow_object_holds_nobody_up(work):
    """A fetch does not wait for a partition in the store while others have data, on its shard or another, nor
    beyond its own time. One object is a pipe: opening it takes until somebody writes."""
    node = Node(work, "wal.seal_age=100ms", shards=2)
    node.start()
    slow = node.broker().topic(partitions=4, prefix="slow", configs=[("retention.ms", "-1")])
    slow.produce([b"old"], 0)
    expect(node.stop(), 0, "exit code")
    store = os.path.join(node.directory, "data", "store", "b")
    objects = [os.path.join(d, f) for d, _, files in os.walk(store) for f in files]
    expect(len(objects), 1, "objects")
    node.start()
    slow = raw_protocol.Topic(node.broker(), slow.name, slow.id)
    slow.wait_for_leaders(4)
    for p in (1, 2, 3):
        slow.produce([b"new"], p)
    os.rename(objects[0], objects[0] + ".away")
    os.mkfifo(objects[0])
    with slow.connect() as c:
        for others in ((1, 2, 3), (1,), (2,), (3,)):
            got, took = fetch_many(c, slow, [(0, 0)] + [(p, 0) for p in others], wait=20000)
            expect(got, {0: (0, 0), **{p: (0, 1) for p in others}}, "what is there")
            expect(took < 2, True, f"at once: {took:.1f} s")
        got, took = fetch_many(c, slow, [(0, 0)], wait=1000)
        expect((got, 0.9 < took < 3), ({0: (0, 0)}, True), f"after its time: {took:.1f} s")
        # Too little for min_bytes: what there is comes when the time is over.
        got, took = fetch_many(c, slow, [(0, 0), (1, 0)], wait=1000, minimum=100000)
        expect((got, 0.9 < took < 3), ({0: (0, 0), 1: (0, 1)}, True), f"after its time: {took:.1f} s")
        expect(node.metric("leat_fetch_left_out_total") >= 6, True, "leat_fetch_left_out_total")
        os.rename(objects[0], objects[0] + ".pipe")
        os.rename(objects[0] + ".away", objects[0])
        os.close(os.open(objects[0] + ".pipe", os.O_WRONLY | os.O_NONBLOCK))  # whoever waited reads nothing, and fails
        wait_for("the old record", lambda: fetch_many(c, slow, [(0, 0)], wait=500)[0] == {0: (0, 1)})
    os.unlink(objects[0] + ".pipe")
    expect(node.stop(), 0, "exit code")


@case
def catch_up_beside_the_tail(work):
    """The short form of perf/isolation: consumers read an old topic from the store while others tail. The times
    are not held to anything: other tests run meanwhile."""
    program = os.path.join(harness.HERE, "..", "..", "perf", "isolation")
    done = subprocess.run([program, "--quick", "--dir", work], capture_output=True, text=True, timeout=200)
    print(done.stdout + done.stderr)
    expect(done.returncode, 0, "exit code of perf/isolation --quick")


@case
def partitions_are_bounded(work):
    """topics.max_partitions counts all topics, and what one request makes."""
    node = Node(work, "topics.max_partitions=20", "num.partitions=3")
    node.start()
    broker = node.broker()

    def create(*counts, check=False):
        got = broker.call(raw_protocol.CREATE_TOPICS, 7, {"timeoutMs": 10000, "validateOnly": check, "Topics": [
            {"Name": raw_protocol.fresh("b"), "NumPartitions": n, "ReplicationFactor": 1} for n in counts]})["Topics"]
        return [(t["ErrorCode"], t["Name"]) for t in got]

    first = create(8, 8, 8)
    expect(sorted(e for e, _ in first), [0, 0, 44], "8 + 8 + 8 of 20")
    expect([e for e, _ in create(5)], [44], "5 more")
    expect([e for e, _ in create(4, check=True)], [0], "a trial of 4 more")
    name = next(n for e, n in first if e == 0)
    got = broker.call(37, 3, {"TimeoutMs": 10000, "Topics": [{"Name": name, "Count": 13, "Assignments": None}]})
    expect(got["Results"][0]["ErrorCode"], 44, "CreatePartitions")
    expect([e for e, _ in create(2)], [0], "2 more")
    auto = broker.call(raw_protocol.METADATA, 12, {"Topics": [{"Name": "auto"}], "AllowAutoTopicCreation": True})
    expect(auto["Topics"][0]["ErrorCode"] != 0, True, "automatic creation of 3")
    expect([e for e, _ in create(2)], [0], "all 20")
    broker.call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [{"Name": name, "TopicId": bytes(16)}]})
    expect([e for e, _ in create(8)], [0], "in the place of a deleted one")
    expect(node.stop(), 0, "exit code")


# ---- full disks ----
class Load:
    """An idempotent producer on a thread: counts up in each partition until told to end.

    Each partition has its own share of the queue: what waits for a full shard keeps nothing from the others."""
    WAITING = 500  # records of a partition that may wait for their acknowledgement

    def __init__(self, address, topic, partitions, value_bytes=4000):
        from confluent_kafka import Producer
        self.topic, self.partitions = topic, partitions
        self.filler = os.urandom(value_bytes)
        self.sent = [0] * partitions
        self.acknowledged = [{} for _ in range(partitions)]  # number: offset
        self.errors = []
        self.stopping = False
        self.producer = Producer({
            "bootstrap.servers": address, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "message.timeout.ms": 300000, "request.timeout.ms": 4000, "retry.backoff.ms": 100,
            "compression.type": "none", "batch.size": 100000})
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def note(self, partition, number):
        def delivered(error, message):
            if error:
                self.errors.append(str(error))
            else:
                self.acknowledged[partition][number] = message.offset()
        return delivered

    def run(self):
        while not self.stopping:
            room = [p for p in range(self.partitions)
                    if self.sent[p] - len(self.acknowledged[p]) < self.WAITING]
            for partition in room:
                number = self.sent[partition]
                self.producer.produce(self.topic, b"%d " % number + self.filler, None, partition,
                                      on_delivery=self.note(partition, number))
                self.sent[partition] += 1
            self.producer.poll(0 if room else 0.1)

    def count(self):
        return sum(len(a) for a in self.acknowledged)

    def finish(self, seconds=120):
        self.stopping = True
        self.thread.join()
        expect(self.producer.flush(seconds), 0, "records that were never acknowledged")


def read_numbers(address, topic, partitions, count):
    """{partition: [(offset, number)]} of at least `count` records, from the start."""
    from confluent_kafka import Consumer, TopicPartition
    client = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False,
                       "auto.offset.reset": "earliest", "check.crcs": True, "fetch.wait.max.ms": 100})
    client.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    got, total, end = {p: [] for p in range(partitions)}, 0, time.monotonic() + 60
    while total < count:
        if time.monotonic() > end:
            raise AssertionError(f"{total} of {count} records after 60 s")
        for message in client.consume(5000, 0.2):
            if message.error():
                raise AssertionError(message.error())
            got[message.partition()].append((message.offset(), int(message.value().split(b" ", 1)[0])))
            total += 1
    client.close()
    return got


def check_numbers(got, load):
    """Everything acknowledged is there, once, in order, where it was said to be."""
    for p in range(load.partitions):
        numbers = [n for _, n in got[p]]
        expect(numbers, list(range(len(numbers))), f"partition {p}: numbers in order, once")
        at = {n: offset for offset, n in got[p]}
        for number, offset in load.acknowledged[p].items():
            expect(at.get(number), offset, f"partition {p}: offset of the acknowledged record {number}")


def commit_error(broker, group, topic):
    got = broker.call(raw_protocol.OFFSET_COMMIT, 8, {
        "GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "GroupInstanceId": None, "Topics": [
            {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": "",
                                                 "CommittedLeaderEpoch": -1}]}]})
    return got["Topics"][0]["Partitions"][0]["ErrorCode"]


def full_store(work, disk):
    """The disk of the object store fills up and is freed."""
    ballast = disk.fill(leave=20 << 20)
    node = Node(work, f"store.url=file://{disk.path}/store", "wal.size=32m", "wal.segment_bytes=2m",
                "message.max.bytes=1m", "store.retry=100ms", "store.cache_bytes=16m", "wal.seal_age=1s",
                "max.decompressed.message.bytes=1m")
    node.start()
    pid = node.process.pid
    broker = node.broker()
    topic = broker.topic(partitions=4, prefix="full")
    group = raw_protocol.fresh("full-group")
    broker.coordinator(group)
    load = Load(node.address, topic.name, 4)
    status, text = wait_for("/readyz tells of the full disk", lambda: (lambda r: r if r[0] == 503 else None)(
        node.http("/readyz")), 100)
    for part in ("takes no records", "no space left", "free space"):
        expect(part in text, True, f"/readyz says '{part}': {text}")
    wait_for("both shards are full", lambda: {s["health"] for s in node.shards()} == {"full"}, 60)
    expect(node.http("/healthz")[0], 200, "/healthz")
    done = subprocess.run([os.path.join(harness.BUILD, "leatctl"), "-A", f"127.0.0.1:{node.admin}", "status"],
                          capture_output=True, text=True)
    expect((done.returncode, "ready = false" in done.stdout, "health = full" in done.stdout), (1, True, True),
           f"leatctl status: {done.stdout}")
    for metric in ("leat_wal_no_room", "leat_upload_failures", "leat_upload_error"):
        expect(node.metric(metric) > 0, True, metric)
    expect(node.metric("leat_wal_failed"), 0, "leat_wal_failed")
    # What the protocol says: retriable errors, within the request's own time.
    request = topic.produce_request(raw_protocol.kmsg.batch([bytes(100000)]))
    request["TimeoutMs"] = 1500
    got = broker.call(raw_protocol.PRODUCE, 12, request)["Responses"][0]["PartitionResponses"][0]
    expect(got["ErrorCode"], 7, f"Produce ({got['ErrorMessage']})")
    # Who asks for weeks waits for wal.full_wait.
    node.set("wal.full_wait", "1s")
    request["TimeoutMs"] = 2 ** 31 - 1
    start = time.monotonic()
    got = broker.call(raw_protocol.PRODUCE, 12, request)["Responses"][0]["PartitionResponses"][0]
    took = time.monotonic() - start
    expect((got["ErrorCode"], took < 10), (7, True), f"Produce that would wait for weeks: {took:.1f} s")
    node.set("wal.full_wait", "1m")
    expect(commit_error(broker, group, topic), 15, "OffsetCommit: COORDINATOR_NOT_AVAILABLE")
    # Consumers go on.
    acknowledged = load.count()
    check_numbers(read_numbers(node.address, topic.name, 4, acknowledged), load)
    expect(load.errors, [], "errors of the producer while it waited")
    # Space returns: it recovers by itself.
    os.unlink(ballast)
    wait_for("ready again", node.ready, 60)
    wait_for("records are taken again", lambda: load.count() > acknowledged + 100, 60)
    load.finish()
    expect(load.errors, [], "errors of the producer")
    expect(load.count(), sum(load.sent), "acknowledged")
    expect((node.process.pid, node.alive()), (pid, True), "the same process")
    wait_for("health is ok", lambda: {s["health"] for s in node.shards()} == {"ok"})
    check_numbers(read_numbers(node.address, topic.name, 4, load.count()), load)
    print(f"{acknowledged} records acknowledged when full, {load.count()} at the end")
    expect(node.stop(), 0, "exit code")
    node.start()
    check_numbers(read_numbers(node.address, topic.name, 4, load.count()), load)
    expect(node.stop(), 0, "exit code")


@case
def full_store_disk(work):
    enter_namespace(work)
    with SmallDisk(work, 128) as disk:
        full_store(work, disk)


@case
def full_index(work):
    """Blocks of many partitions fill index.memory: producers wait, consumers go on, a larger bound ends it."""
    node = Node(work, "index.memory=64k", "wal.seal_age=50ms", "store.delete_delay=1s", shards=1)
    node.start()
    broker = node.broker()
    count = 300
    topic = broker.topic(partitions=count)
    batch = raw_protocol.kmsg.batch([b"x"], timestamp=int(time.time() * 1000))  # nothing for retention

    def produce():
        got = broker.call(raw_protocol.PRODUCE, 12, {"Acks": -1, "TimeoutMs": 1000, "TransactionalId": None, "TopicData": [
            {"Name": topic.name, "PartitionData": [{"Index": i, "Records": batch} for i in range(count)]}]})
        return {p["ErrorCode"] for p in got["Responses"][0]["PartitionResponses"]}

    taken = 0
    while produce() == {0} and taken < 100:
        taken += 1
    expect(2 <= taken < 20, True, f"rounds until full: {taken}")
    wait_for("only blocks are left, and it stays full", lambda: produce() == {7}, 20)
    status, text = node.http("/readyz")
    expect((status, "index.memory" in text, "retention" in text), (503, True, True), f"/readyz: {text}")
    expect(node.shards()[0]["health"], "full", "status")
    expect(node.metric("leat_index_full"), 1, "leat_index_full")
    expect(node.metric("leat_index_memory_bytes") >= 65536, True, "leat_index_memory_bytes")
    expect(len(node.logged("index_full")) >= 1, True, "a line in the log")
    expect(topic.fetch_batches(0, partition=7)[0][0], 0, "consumers go on")
    before = topic.list_offset(-1)["Offset"]
    node.set("index.memory", "1m")
    expect(produce(), {0}, "with a larger bound")
    expect(topic.list_offset(-1)["Offset"], before + 1, "nothing came twice")
    expect(node.http("/readyz")[0], 200, "/readyz")
    node.set("index.memory", "64k")
    wait_for("full again", lambda: produce() == {7}, 20)
    deleted = broker.call(raw_protocol.DELETE_RECORDS, 2, {"TimeoutMs": 5000, "Topics": [{"Name": topic.name, "Partitions": [
        {"PartitionIndex": i, "Offset": -1} for i in range(count)]}]})["Topics"][0]["Partitions"]
    expect({p["ErrorCode"] for p in deleted}, {0}, "DeleteRecords")
    expect(produce(), {0}, "deleted records make room")
    expect(node.stop(), 0, "exit code")
    node.start()
    expect(topic.list_offset(-1)["Offset"] > before, True, "after a restart")
    expect(node.stop(), 0, "exit code")


@case
def many_partitions_asked_for_by_name(work):
    """DescribeLogDirs with 20,000 topics and 50,000 partitions named: nothing is compared pair by pair."""
    node = Node(work, "topics.max_partitions=60000", shards=1)
    node.start()
    broker = node.broker()
    count, name = 50000, "many-partitions"
    made = broker.call(raw_protocol.CREATE_TOPICS, 7, {"timeoutMs": 15000, "Topics": [
        {"Name": name, "NumPartitions": count, "ReplicationFactor": -1}]})["Topics"]
    expect([t["ErrorCode"] for t in made], [0], "CreateTopics")
    others = [f"{i:0{len(name)}}" for i in range(20000)]
    asked = [{"Topic": other, "Partitions": [0]} for other in others]
    asked.append({"Topic": name, "Partitions": list(range(count)) + list(range(count - 1, -1, -1))})
    before = node.cpu_seconds()
    got = broker.call(35, 4, {"Topics": asked})["Results"][0]["Topics"]
    used = node.cpu_seconds() - before
    expect([t["Name"] for t in got], [name], "topics that are there")
    expect([p["PartitionIndex"] for p in got[0]["Partitions"]], list(range(count)), "each partition once")
    print(f"{used:.2f} s of processor time")
    expect(used < 1, True, f"in a turn of the shard, not {used:.2f} s")
    expect(node.stop(), 0, "exit code")


@case
def failed_log_is_read_only(work):
    """The disk of the write-ahead log answers EIO: the shard takes no records until a restart, and says so."""
    enter_namespace(work)
    with FailingDisk(work, 64, 48) as disk:
        node = Node(work, f"wal.path={disk.path}/wal", "wal.size=32m", "wal.segment_bytes=4m", shards=1)
        node.start()
        broker = node.broker()
        topic = broker.topic()
        group = raw_protocol.fresh("failed-group")
        broker.coordinator(group)
        for i in range(10):
            expect(topic.produce([b"kept %d" % i]), i, "offset")
        expect(commit_error(broker, group, topic), 0, "OffsetCommit before")
        disk.fail()

        def error():
            return topic.produce_raw(raw_protocol.kmsg.batch([bytes(500000)]))["ErrorCode"]
        wait_for("Produce: KAFKA_STORAGE_ERROR", lambda: error() == 56, 30)
        kept = topic.list_offset(-1)["Offset"]
        status, text = node.http("/readyz")
        expect((status, "read-only" in text, "restart" in text), (503, True, True), f"/readyz: {text}")
        expect(node.shards()[0]["health"], "read-only", "status")
        expect(node.metric("leat_wal_failed") > 0, True, "leat_wal_failed")
        expect(len(node.logged("wal_failed")), 1, "lines in the log")
        expect(topic.fetch_batches(0)[0][0], 0, "consumers go on")
        expect(topic.produce_raw(raw_protocol.kmsg.batch([b"x"]))["ErrorCode"], 56, "still")
        expect(commit_error(broker, group, topic), 15, "OffsetCommit: COORDINATOR_NOT_AVAILABLE")
        node.kill()
        disk.heal()
        disk.disk.remount()
        node.start()
        expect(topic.list_offset(-1)["Offset"] >= kept, True, "everything acknowledged is there")
        expect(topic.fetch_batches(0)[0][:2], (0, 0), "the first batch")
        expect(node.http("/readyz")[0], 200, "/readyz after the restart")
        node.broker().serves()
        expect(node.stop(), 0, "exit code")


@case
def full_data_disk_at_start(work):
    """Too little room for metadata or the log: a message with cause and remedy, no crash, and a start
    as if nothing had been once there is room."""
    enter_namespace(work)
    with SmallDisk(work, 40) as disk:
        node = Node(work, "wal.size=16m", "wal.segment_bytes=1m", "message.max.bytes=500k",
                    f"node.data_dir={disk.path}/data", f"store.url=file://{work}/store", shards=1)
        for kib in (0, 2, 4, 6, 9, 14, 30, 60, 1000, 8000):
            ballast = disk.fill(leave=kib << 10)
            # A start that failed ends the process as it is: what it leaks is no finding.
            environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
            done = subprocess.run(node.command(), capture_output=True, text=True, timeout=30, env=environment)
            last = done.stderr.strip().split("\n")[-1]
            print(f"{kib} KiB left: {last}")
            expect(done.returncode, 1, f"exit code with {kib} KiB left")
            expect("no space left" in last.lower(), True, "the cause")
            expect(any(r in last for r in ("free space", "free some space", "more room")), True, "a remedy")
            expect(disk.path in last, True, "the place")
            os.unlink(ballast)
        expect("lower wal.size" in last, True, "the remedy when the log is too large")
        expect([n for n in os.listdir(f"{disk.path}/data/wal") if n.endswith(".wal")], [],
               "half a log is not left behind")
        node.start()
        node.broker().serves()
        expect(node.stop(), 0, "exit code")


@case
def small_disk_and_no_wal_size(work):
    """A node that is told no size takes a tenth of a small disk for its log, and says so; one that is told takes
    what was asked for. A restart and a reload find nothing changed."""
    enter_namespace(work)

    class Unset(Node):
        def command(self):
            parts = super().command()
            sizes = [n for n, part in enumerate(parts) if part.startswith("wal.size=")]
            return [part for n, part in enumerate(parts) if n not in sizes and n + 1 not in sizes]

    def logs(disk):
        return sum(f.stat().st_size for f in os.scandir(f"{disk.path}/data/wal") if f.name.endswith(".wal"))

    with SmallDisk(work, 900) as disk:
        node = Unset(work, f"node.data_dir={disk.path}/data", "wal.segment_bytes=4m")
        for start in range(2):
            node.start()
            v = os.statvfs(disk.path)
            tenth = v.f_blocks * v.f_frsize // 10
            size = int(node.key("wal.size")["plain"])
            print(f"a disk of {v.f_blocks * v.f_frsize >> 20} MiB: wal.size {size >> 20} MiB, files {logs(disk) >> 20} MiB")
            expect(tenth - (2 << 20) < size <= tenth, True, "wal.size")
            expect(size - (8 << 20) < logs(disk) <= size + (1 << 20), True, "bytes of the log's files")
            expect(node.key("wal.size")["source"], "default", "its source")
            node.process.send_signal(signal.SIGHUP)
            node.broker().serves()
            expect("key=wal.size" in open(node.log).read(), False, "a reload speaks of it")
            expect(node.stop(), 0, "exit code")
        asked = Node(work, f"node.data_dir={disk.path}/data", "wal.segment_bytes=4m", "wal.size=256m")
        asked.start()
        expect(logs(disk) > 240 << 20, True, "as much as was asked for")
        expect(asked.stop(), 0, "exit code")


# ---- merging: what lies in bundles becomes runs ----
class Hashes:
    """Of each partition's values in order."""

    def __init__(self, partitions):
        self.hashes = [hashlib.sha256() for _ in range(partitions)]
        self.counts = [0] * partitions

    def add(self, partition, value):
        self.hashes[partition].update(value)
        self.counts[partition] += 1

    def digest(self):
        return [(count, h.hexdigest()) for count, h in zip(self.counts, self.hashes)]


def produce_uneven(address, topic, partitions, mib, hashes, seed):
    """Half of it to the first four partitions; returns the bytes of values."""
    from confluent_kafka import Producer
    client = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 20,
                       "batch.size": 1 << 17, "queue.buffering.max.messages": 20000})
    pool, chance, total = os.urandom(1 << 20), random.Random(seed), 0
    while total < mib << 20:
        for _ in range(1000):
            partition = chance.randrange(4 if chance.random() < 0.5 else partitions)
            at = chance.randrange(len(pool) - 4000)
            value = pool[at:at + chance.randrange(200, 4000)]
            while True:
                try:
                    client.produce(topic, value, partition=partition)
                    break
                except BufferError:
                    client.poll(0.05)
            hashes.add(partition, value)
            total += len(value)
        client.poll(0)
    expect(client.flush(120), 0, "records that were never acknowledged")
    return total


def read_hashes(address, topic, partitions, count):
    from confluent_kafka import Consumer, TopicPartition
    client = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False,
                       "auto.offset.reset": "error", "check.crcs": True})
    client.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    got, end = Hashes(partitions), time.monotonic() + 120
    while sum(got.counts) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{sum(got.counts)} of {count} records after 120 s")
        for message in client.consume(5000, 0.2):
            if message.error():
                raise AssertionError(message.error())
            got.add(message.partition(), message.value())
    client.close()
    return got.digest()


@case
def bundles_become_runs(work):
    """Some hundred MiB over many partitions, with a kill in the middle: what is written to the store for it, what
    lies there then, that every partition reads as it was written, and that nothing is left of a deleted topic.
    tests/s3/run has it done on an S3 server: E2E_STORE_URL, with its objects as files in E2E_STORE_FILES."""
    mib, partitions = int(os.environ.get("E2E_MERGE_MIB", "256")), 64
    url = os.environ.get("E2E_STORE_URL", f"file://{work}/store")
    store = os.environ.get("E2E_STORE_FILES", f"{work}/store")
    node = Node(work, "wal.segment_bytes=4m", "store.run_bytes=4m", "store.merge_delay=1s", "store.merge_age=4s",
                "store.delete_delay=1s", "store.cache_bytes=16m", "memory.budget=64m", f"store.url={url}")
    node.start()

    def objects(kind):
        return sum(len(files) for _, _, files in os.walk(f"{store}/{kind}"))

    def labelled(name, label):
        return sum(float(line.rpartition(" ")[2]) for line in node.http("/metrics")[1].split("\n")
                   if line.startswith(name + "{") and label in line)

    topic, sent, put, data, puts = node.broker().topic(partitions=partitions), Hashes(partitions), 0, 0, 0
    for life in range(2):
        produce_uneven(node.address, topic.name, partitions, mib // 2, sent, life)
        if life == 1:
            wait_for("all is in runs", lambda: objects("b") == 0, 120)
        for kind in ("bundle", "fresh_run", "run"):
            put += labelled("leat_store_put_bytes_total", f'kind="{kind}"')
        data += node.metric("leat_produce_bytes_total")
        puts += labelled("leat_store_operations_total", 'op="put"')
        if life == 0:
            node.kill()
            node.start()
    runs, said = objects("r"), node.metric("leat_store_amplification_percent") / 2  # of two shards
    expect(node.metric("leat_merges_total") > 0, True, "merges")
    expect(labelled("leat_merges_total", 'result="failed"'), 0, "merges that failed")
    print(f"{data / 2**20:.0f} MiB of batches over {partitions} partitions: bytes put / produced {put / data:.2f}, "
          f"{puts / data * 2**30:.0f} PUTs and {runs / data * 2**30:.0f} objects a GiB "
          f"(the node says {said:.0f} %)")
    expect(put / data <= 2.2, True, f"bytes put / produced: {put / data:.3f}")
    expect(abs(said / 100 - put / data) <= 0.4, True, f"leat_store_amplification_percent: {said}")
    expect(read_hashes(node.address, topic.name, partitions, sum(sent.counts)) == sent.digest(), True,
           "the values of every partition, in order")
    expect(node.stop(), 0, "exit code")
    node.start()
    expect(read_hashes(node.address, topic.name, partitions, sum(sent.counts)) == sent.digest(), True,
           "the same after a restart")
    deleted = node.broker().call(DELETE_TOPICS, 5, {"TopicNames": [topic.name], "TimeoutMs": 30000})
    expect(deleted["Responses"][0]["ErrorCode"], 0, "DeleteTopics")
    wait_for("nothing is left of the topic", lambda: objects("b") + objects("r") == 0, 60)
    expect(node.stop(), 0, "exit code")


@case
def large_partitions_are_put_once(work):
    """Four partitions: what a segment has of each is enough for a run, so nearly nothing is put twice, though all
    that lies in bundles is merged at once. As above on an S3 server."""
    mib, partitions = int(os.environ.get("E2E_MERGE_MIB", "256")) // 2, 4
    url = os.environ.get("E2E_STORE_URL", f"file://{work}/store")
    store = os.environ.get("E2E_STORE_FILES", f"{work}/store")
    node = Node(work, "wal.segment_bytes=4m", "wal.seal_age=1s", "store.run_bytes=2m", "store.merge_delay=0",
                "store.merge_age=0", "store.delete_delay=1s", "memory.budget=64m", f"store.url={url}")
    node.start()

    def objects(kind):
        return sum(len(files) for _, _, files in os.walk(f"{store}/{kind}"))

    topic, sent = node.broker().topic(partitions=partitions), Hashes(partitions)
    produce_uneven(node.address, topic.name, partitions, mib, sent, 0)
    data = node.metric("leat_produce_bytes_total")
    wait_for("all is uploaded and merged", lambda: node.metric("leat_upload_data_bytes_total") >= data and
             objects("b") == 0, 60)
    put, said = node.metric("leat_store_put_bytes_total"), node.metric("leat_store_amplification_percent") / 2
    fresh = node.metric("leat_upload_run_data_bytes_total")
    print(f"{data / 2**20:.0f} MiB of batches over {partitions} partitions: bytes put / produced {put / data:.2f} "
          f"({fresh / data * 100:.0f} % straight into runs), {objects('r') / data * 2**30:.0f} objects a GiB "
          f"(the node says {said:.0f} %)")
    expect(put / data <= 1.2, True, f"bytes put / produced: {put / data:.3f}")
    expect(100 <= said <= 120, True, f"leat_store_amplification_percent: {said}")
    node.kill()
    node.start()
    expect(read_hashes(node.address, topic.name, partitions, sum(sent.counts)) == sent.digest(), True,
           "the values of every partition, in order")
    expect(node.stop(), 0, "exit code")


# ---- the object store ----
def leatctl(node, *words):
    """(exit status, output) of leatctl."""
    done = subprocess.run([os.path.join(harness.BUILD, "leatctl"), "-A", f"127.0.0.1:{node.admin}", *words],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout


def stored(node):
    """{path: bytes} of the objects of a file:// store that metadata names: all but the metadata's own backup."""
    root, sizes = f"{node.directory}/data/store", {}
    for d, _, files in os.walk(root):
        for f in files:
            if f.startswith(".") or os.path.relpath(d, root).startswith("m"):
                continue
            try:
                sizes[os.path.join(d, f)] = os.path.getsize(os.path.join(d, f))
            except FileNotFoundError:
                pass  # deleted since it was listed: not there
    return sizes


@case
def the_store_comes_clean(work):
    """Writing, deleting topics and records, compaction and kill -9: in the end the store holds what the metadata
    names, byte for byte, and every checksum is right. Damage is named."""
    from confluent_kafka import Producer
    node = Node(work, "wal.segment_bytes=2m", "message.max.bytes=1m", "max.decompressed.message.bytes=1m",
                "wal.seal_age=200ms", "store.delete_delay=1s", "store.scrub_interval=1s",
                "log.retention.check.interval.ms=500")
    node.start()
    broker = node.broker()
    kept = broker.topic(partitions=4, prefix="kept")
    load = Load(node.address, kept.name, 4)
    for i in range(4):
        gone = broker.topic(partitions=2, prefix=f"gone{i}")
        keys = broker.topic(partitions=1, prefix=f"keys{i}", configs=[("cleanup.policy", "compact"),
                                                                    ("min.cleanable.dirty.ratio", "0.01")])
        producer = Producer({"bootstrap.servers": node.address, "linger.ms": 5})
        for n in range(3000):
            producer.produce(keys.name, b"x" * 200, b"key %d" % (n % 50))
            producer.produce(gone.name, b"y" * 1000)
            producer.poll(0)
        producer.flush(60)
        time.sleep(0.5)
        broker.call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000,
                                                    "Topics": [{"Name": gone.name, "TopicId": bytes(16)}]})
        node.kill()
        node.start()
        wait_for("ready", node.ready)
        broker = node.broker()
    load.finish()
    expect(load.errors, [], "errors of the producer")
    status, text = leatctl(node, "store", "verify", "--rate", "0")
    expect(status, 0, f"verify while it is used: {text}")

    def clean():
        use = json.loads(leatctl(node, "store", "du", "--json")[1])
        return use if use["discarded_objects"] == 0 and use["bytes"] == sum(stored(node).values()) and \
            use["objects"] == len(stored(node)) else None
    use = wait_for("the store holds what the metadata names", clean, 60)
    expect(sum(t["bytes"] for t in use["topics"]) + use["overhead_bytes"], use["bytes"], "du adds up")
    expect([t for t in use["topics"] if t["name"].startswith("gone")], [], "deleted topics")
    status, text = leatctl(node, "store")
    expect((status, f"objects          {use['objects']}," in text), (0, True), f"leatctl store: {text}")
    report = json.loads(leatctl(node, "store", "verify", "--rate", "0", "--json")[1])
    expect([report[k] for k in ("state", "objects_done", "bytes_done", "faults_total", "orphans_total")],
           ["done", use["objects"], use["bytes"], 0, 0], "verify")
    check_numbers(read_numbers(node.address, kept.name, 4, load.count()), load)
    path = max(stored(node), key=lambda p: stored(node)[p])
    with open(path, "r+b") as f:
        f.seek(3000)
        byte = f.read(1)
        f.seek(3000)
        f.write(bytes([byte[0] ^ 1]))
    status, text = leatctl(node, "store", "verify", "--rate", "0")
    name = os.path.relpath(path, f"{node.directory}/data/store")
    named = re.search(re.escape(name) + r": the block fails its checksums \(CORRUPT\): topic (\S+) partition \d+ "
                      r"offsets \d+\.\.\d+\n", text)
    expect((status, named is not None), (1, True), f"damage is named: {text}")
    expect(leatctl(node, "store", "nonsense")[0], 2, "wrong usage")
    print(f"{use['objects']} objects, {use['bytes']} bytes")
    expect(node.stop(), 0, "exit code")
    expect(leatctl(node, "store")[0], 3, "no node")


@case
def a_clone_shares_the_objects(work):
    """A clone is made in an instant, ends where it is told to the record, reads the same in a client, and neither
    topic hurts the other: writing, deletion, kills, a lost data directory."""
    from confluent_kafka import Consumer, TopicPartition
    node = Node(work, "wal.segment_bytes=4m", "message.max.bytes=1m", "max.decompressed.message.bytes=1m",
                "store.delete_delay=500ms", "store.scrub_interval=1s", "store.cache_bytes=8m",
                "store.merge_delay=1s", "store.merge_age=2s", "store.run_bytes=4m")
    node.start()
    broker = node.broker()
    source = broker.topic(partitions=4, prefix="source")

    def ends(topic):
        client = Consumer({"bootstrap.servers": node.address, "group.id": "sizes"})
        got = [client.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(4)]
        client.close()
        return got

    def offsets_at(topic, ms):
        client = Consumer({"bootstrap.servers": node.address, "group.id": "times"})
        got = client.offsets_for_times([TopicPartition(topic, p, ms) for p in range(4)], timeout=20)
        client.close()
        return [t.offset for t in got]

    def clone(origin, *words):
        name = raw_protocol.fresh("clone")
        began = time.monotonic()
        status, text = leatctl(node, "topic", "clone", origin, name, *words)
        expect(status, 0, f"leatctl topic clone {origin} {name} {words}: {text}")
        return name, time.monotonic() - began, text.strip()

    # While it is written to: all that was acknowledged is in it.
    load = Load(node.address, source.name, 4)
    wait_for("something to clone", lambda: load.count() > 8000, 120)
    middle_ms = int(time.time() * 1000)
    wait_for("more to clone", lambda: load.count() > 20000, 120)
    acknowledged = [max(list(a.values())) + 1 for a in load.acknowledged]
    first = clone(source.name)[0]
    load.finish()
    whole = read_numbers(node.address, source.name, 4, load.count())
    check_numbers(whole, load)

    def holds(topic, until):
        got = read_numbers(node.address, topic, 4, sum(until))
        for p in range(4):
            expect(got[p], whole[p][:until[p]], f"{topic}-{p} holds what the source held")

    def all_hold():
        for topic, until in made.items():
            expect(ends(topic), until, f"ends of {topic}")
            holds(topic, until)

    made = {first: ends(first)}
    expect(all(e >= a for e, a in zip(made[first], acknowledged)), True, "what was acknowledged is in the clone")
    at = ends(source.name)[0] // 2 + 1
    by_offset, took, text = clone(source.name, "--at", str(at))
    print(text)
    expect(took < 1, True, f"leatctl topic clone --at {at} took {took:.3f} s: {text}")
    made[by_offset] = [min(at, e) for e in ends(source.name)]
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle_ms / 1000)) + f".{middle_ms % 1000:03}Z"
    by_time, took, text = clone(source.name, "--at", when)
    print(text)
    made[by_time] = offsets_at(source.name, middle_ms)
    expect(all(0 < e < a for e, a in zip(made[by_time], made[first])), True, f"{when} is in the middle: {made[by_time]}")
    of_clone = clone(by_offset, "--at", str(at // 3))[0]
    made[of_clone] = [min(at // 3, e) for e in made[by_offset]]
    all_hold()

    # Refusals.
    for words, what in (((source.name, first), "there is a topic"), (("no-such", "x"), "there is no topic no-such"),
                        ((source.name, "bad/name"), "is no name"), (("__consumer_offsets", "x"), "internal"),
                        ((source.name, "x", "--at", "99999999"), "beyond the end"),
                        ((source.name, "x", "--at", "0"), "nothing below offset 0"),
                        ((source.name, "x", "--at", "2001-01-01"), "nothing from before"),
                        ((source.name, "x", "--at", "2201-01-01"), "in the future")):
        status, text = leatctl(node, "topic", "clone", *words)
        expect((status, what in text), (1, True), f"clone {words}: {text}")
    compacted = broker.topic(prefix="keys", configs=[("cleanup.policy", "compact")])
    status, text = leatctl(node, "topic", "clone", compacted.name, "x")
    expect((status, "compact" in text), (1, True), f"clone of a compacted topic: {text}")
    expect(leatctl(node, "topic", "clone", source.name)[0], 2, "wrong usage")
    expect(leatctl(node, "topic", "clone", source.name, "y", "--at", "soon")[0], 2, "no time")

    # One is written to, another one trimmed, the source deleted: the others stay, also behind a kill.
    more = Load(node.address, first, 4)
    wait_for("records into the clone", lambda: more.count() > 1000, 60)
    more.finish()
    del made[first]
    broker.call(21, 2, {"TimeoutMs": 10000, "Topics": [{"Name": first, "Partitions": [
        {"PartitionIndex": p, "Offset": 2000} for p in range(4)]}]})
    broker.call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [
        {"Name": source.name, "TopicId": bytes(16)}]})
    time.sleep(2)
    all_hold()
    status, text = leatctl(node, "store", "du", "-p")
    expect((status, "shared" in text, "(deleted)" in text), (0, True, True), f"du: {text}")
    status, text = leatctl(node, "store", "verify", "--rate", "0")
    expect(status, 0, f"verify: {text}")
    node.kill()
    node.start()
    wait_for("ready", node.ready)
    all_hold()

    # The data directory is lost but for the store.
    expect(node.stop(), 0, "exit code")
    recover_from_store(node)
    node.start()
    wait_for("ready", node.ready)
    all_hold()
    status, text = leatctl(node, "store", "verify", "--rate", "0")
    expect(status, 0, f"verify: {text}")
    for topic in (first, *made):
        node.broker().call(raw_protocol.DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [
            {"Name": topic, "TopicId": bytes(16)}]})
    wait_for("the objects go with the last of them", lambda: sum(stored(node).values()) < 1 << 20, 60)
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
