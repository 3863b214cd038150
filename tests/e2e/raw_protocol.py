#!/usr/bin/env python3
"""Protocol checks without a client library: raw_protocol.py HOST:PORT CASE, or --list.

What is asserted here is what Apache Kafka 4.4 does. After every case a fresh connection must still
be served: no input may hurt others.
"""
import os
import random
import re
import resource
import socket
import struct
import sys
import threading
import time
import urllib.request
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kmsg  # noqa: E402

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN, HEARTBEAT, LEAVE, SYNC = 8, 9, 10, 11, 12, 13, 14
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID = 18, 19, 20, 21, 22
SLOWNESS = int(os.environ.get("E2E_SLOWNESS", "1"))  # of the node's build: tests/e2e/run --slow-build
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, expected {wanted!r}")


def fresh(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


class Broker:
    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.schema = kmsg.Schema()

    def connect(self, address=None, timeout=15):
        return kmsg.Connection(address or self.address, self.schema, timeout)

    def call(self, key, version, values, address=None):
        with self.connect(address) as c:
            return c.call(key, version, values)

    def call_until(self, key, version, values, address=None):
        """As call, again while a coordinator is still loading."""
        for _ in range(100):
            got = self.call(key, version, values, address)
            if not {14, 15, 16}.intersection(errors_in(got)):
                break
            time.sleep(0.1)
        return got

    def advertised(self):
        """{key: (min, max)} of what the broker serves and the definitions of 4.4 know."""
        ranges = {}
        for api in self.call(API_VERSIONS, 0, {})["ApiKeys"]:
            known = self.schema.requests[api["ApiKey"]].valid
            ranges[api["ApiKey"]] = (max(api["MinVersion"], known[0]), min(api["MaxVersion"], known[1]))
        return ranges

    def topic(self, partitions=1, prefix="raw", configs=()):
        name = fresh(prefix)
        got = self.call(CREATE_TOPICS, 7, {"timeoutMs": 15000, "Topics": [
            {"Name": name, "NumPartitions": partitions, "ReplicationFactor": -1,
             "Configs": [{"Name": k, "Value": v} for k, v in configs]}]})["Topics"][0]
        expect(got["ErrorCode"], 0, f"create topic {name} ({got['ErrorMessage']})")
        topic = Topic(self, name, got["TopicId"])
        topic.wait_for_leaders(partitions)
        return topic

    def coordinator(self, group):
        for _ in range(100):
            got = self.call(FIND_COORDINATOR, 4, {"KeyType": 0, "CoordinatorKeys": [group]})["Coordinators"][0]
            if got["ErrorCode"] == 0:
                address = (got["Host"], got["Port"])
                self.call_until(15, 5, {"Groups": [group]}, address)
                return address
            if got["ErrorCode"] not in (14, 15, 16):
                break
            time.sleep(0.1)
        raise AssertionError(f"coordinator of {group}: error {got['ErrorCode']}")

    def serves(self):
        """A whole round trip on fresh connections."""
        topic = self.topic()
        topic.produce([b"still here"])
        expect(topic.fetch_batches(0)[0][2], 1, "records read back after the case")


class Topic:
    def __init__(self, broker, name, topic_id):
        self.broker, self.name, self.id = broker, name, topic_id
        self.leaders = {}

    def wait_for_leaders(self, partitions):
        for _ in range(100):
            got = self.broker.call(METADATA, 12, {"Topics": [{"Name": self.name}]})
            nodes = {b["NodeId"]: (b["Host"], b["Port"]) for b in got["Brokers"]}
            parts = got["Topics"][0]["Partitions"]
            if len(parts) == partitions and all(p["LeaderId"] in nodes for p in parts):
                self.leaders = {p["PartitionIndex"]: nodes[p["LeaderId"]] for p in parts}
                # The metadata may be ahead of the log itself.
                if all(self.list_offset(-1, p)["ErrorCode"] == 0 for p in self.leaders):
                    return
            time.sleep(0.1)
        raise AssertionError(f"topic {self.name} has no leaders after 10 s")

    def leader(self, partition=0):
        return self.leaders[partition]

    def connect(self, partition=0):
        return self.broker.connect(self.leader(partition))

    def produce_request(self, records, partition=0, acks=-1):
        return {"Acks": acks, "TimeoutMs": 10000, "TransactionalId": None, "TopicData": [
            {"Name": self.name, "TopicId": self.id,
             "PartitionData": [{"Index": partition, "Records": records}]}]}

    def produce_raw(self, records, partition=0, acks=-1, version=12, connection=None):
        request = self.produce_request(records, partition, acks)
        if connection:
            got = connection.call(PRODUCE, version, request)
        else:
            got = self.broker.call(PRODUCE, version, request, self.leader(partition))
        return got["Responses"][0]["PartitionResponses"][0]

    def produce(self, values, partition=0, **options):
        got = self.produce_raw(kmsg.batch(values, **options), partition)
        expect(got["ErrorCode"], 0, f"produce to {self.name}/{partition}")
        return got["BaseOffset"]

    def fetch_request(self, offset, partition=0, wait=500, minimum=1, session=0, epoch=-1, maximum=1 << 20):
        return {"ReplicaId": -1, "MaxWaitMs": wait, "MinBytes": minimum, "MaxBytes": 50 << 20,
                "SessionId": session, "SessionEpoch": epoch, "Topics": [
                    {"Topic": self.name, "TopicId": self.id, "Partitions": [
                        {"Partition": partition, "FetchOffset": offset, "CurrentLeaderEpoch": -1,
                         "LastFetchedEpoch": -1, "LogStartOffset": -1, "PartitionMaxBytes": maximum}]}]}

    def fetch(self, offset, partition=0, version=16, **options):
        got = self.broker.call(FETCH, version, self.fetch_request(offset, partition, **options),
                               self.leader(partition))
        return got["Responses"][0]["Partitions"][0]

    def fetch_batches(self, offset, partition=0, **options):
        got = self.fetch(offset, partition, **options)
        expect(got["ErrorCode"], 0, f"fetch of {self.name}/{partition} at {offset}")
        return kmsg.batches(got["Records"])

    def list_offset(self, timestamp, partition=0, version=11):
        got = self.broker.call(LIST_OFFSETS, version, {
            "ReplicaId": -1, "TimeoutMs": 10000, "Topics": [{"Name": self.name, "Partitions": [
                {"PartitionIndex": partition, "CurrentLeaderEpoch": -1, "Timestamp": timestamp}]}]},
            self.leader(partition))
        return got["Topics"][0]["Partitions"][0]


# ---- versions ----
@case
def api_versions(broker):
    for version in range(5):
        got = broker.call(API_VERSIONS, version, {"ClientSoftwareName": "raw", "ClientSoftwareVersion": "1"})
        expect(got["ErrorCode"], 0, f"ApiVersions v{version}")
        for api in got["ApiKeys"]:
            name = broker.schema.name(api["ApiKey"])
            valid = broker.schema.requests[api["ApiKey"]].valid
            if api["MaxVersion"] > valid[1]:
                raise AssertionError(f"{name}: v{api['MaxVersion']} is offered, 4.4 ends at v{valid[1]}")
            if api["MinVersion"] > api["MaxVersion"]:
                raise AssertionError(f"{name}: the offered range is empty")
            if api["ApiKey"] == PRODUCE:
                # librdkafka reads the low end to find out about old brokers, so it is pinned at 0.
                expect(api["MinVersion"], 0, "lowest Produce version offered")
            elif api["MinVersion"] != valid[0]:
                raise AssertionError(f"{name}: offered from v{api['MinVersion']}, 4.4 from v{valid[0]}")


@case
def api_versions_from_the_future(broker):
    with broker.connect() as c:
        c.send_frame(struct.pack(">hhih", API_VERSIONS, 99, 7, -1) + b"\0\x05future\x02x\0")
        correlation, got = broker.schema.response(API_VERSIONS, 0, c.read_frame())
        expect(correlation, 7, "correlation")
        expect(got["ErrorCode"], 35, "error")
        own = [a for a in got["ApiKeys"] if a["ApiKey"] == API_VERSIONS]
        expect(len(own), 1, "the answer names ApiVersions' own range")
        # The connection goes on.
        expect(c.call(API_VERSIONS, own[0]["MaxVersion"], {
            "ClientSoftwareName": "raw", "ClientSoftwareVersion": "1"})["ErrorCode"], 0, "retry")


@case
def api_versions_bad_client_name(broker):
    got = broker.call(API_VERSIONS, 3, {"ClientSoftwareName": "!bad name!", "ClientSoftwareVersion": "1"})
    expect(got["ErrorCode"], 42, "a software name that breaks the rules")


@case
def unknown_api_key(broker):
    for key in (5, 777, -1, 32767):
        with broker.connect() as c:
            c.send_frame(struct.pack(">hhih", key, 0, 1, -1))
            expect(c.read_frame(), None, f"answer to key {key}")


@case
def unsupported_version(broker):
    """An unserved version closes the connection, but for ApiVersions."""
    for key, version in ((METADATA, 99), (FETCH, 3), (PRODUCE, 99), (FIND_COORDINATOR, 40), (METADATA, -1)):
        with broker.connect() as c:
            c.send_frame(struct.pack(">hhih", key, version, 1, -1) + bytes(64))
            expect(c.read_frame(), None, f"answer to key {key} v{version}")


@case
def produce_v2(broker):
    topic = broker.topic()
    with topic.connect() as c:
        body = struct.pack(">hii", 1, 1000, 1) + struct.pack(">h", len(topic.name)) + topic.name.encode()
        records = kmsg.batch([b"x"])
        body += struct.pack(">iii", 1, 0, len(records)) + records
        c.send_frame(struct.pack(">hhih", PRODUCE, 2, 9, -1) + body)
        expect(c.read_frame(), None, "answer to Produce v2")
    expect(topic.list_offset(-1)["Offset"], 0, "log end afterwards")


def every_api_bodies(broker, topic):
    """Requests that mean something, by key; what is not here goes with every field at its default."""
    group = fresh("raw-every")
    one_partition = {"Index": 0, "PartitionIndex": 0, "Partition": 0}
    return {
        PRODUCE: lambda v: topic.produce_request(kmsg.batch([b"every"])),
        FETCH: lambda v: topic.fetch_request(0),
        LIST_OFFSETS: lambda v: {"ReplicaId": -1, "Topics": [
            {"Name": topic.name, "Partitions": [dict(one_partition, CurrentLeaderEpoch=-1, Timestamp=-1)]}]},
        METADATA: lambda v: {"Topics": [{"Name": topic.name}]},
        OFFSET_COMMIT: lambda v: {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "GroupInstanceId": None,
                                  "Topics": [{"Name": topic.name, "TopicId": topic.id, "Partitions": [
                                      dict(one_partition, CommittedOffset=1, CommittedMetadata="m")]}]},
        OFFSET_FETCH: lambda v: {"GroupId": group, "Topics": [{"Name": topic.name, "PartitionIndexes": [0]}],
                                 "Groups": [{"GroupId": group, "MemberId": None, "MemberEpoch": -1, "Topics": [
                                     {"Name": topic.name, "TopicId": topic.id, "PartitionIndexes": [0]}]}]},
        FIND_COORDINATOR: lambda v: {"Key": group, "KeyType": 0, "CoordinatorKeys": [group]},
        JOIN: lambda v: {"GroupId": fresh("raw-join"), "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000,
                         "ProtocolType": "consumer", "GroupInstanceId": None,
                         "Protocols": [{"Name": "range", "Metadata": b""}]},
        HEARTBEAT: lambda v: {"GroupId": group, "MemberId": "nobody"},
        LEAVE: lambda v: {"GroupId": group, "MemberId": "nobody", "Members": [{"MemberId": "nobody"}]},
        SYNC: lambda v: {"GroupId": group, "MemberId": "nobody", "ProtocolType": None, "ProtocolName": None},
        15: lambda v: {"Groups": [group]},
        API_VERSIONS: lambda v: {"ClientSoftwareName": "raw", "ClientSoftwareVersion": "1", "NodeId": -1,
                                 "ClusterId": None},
        CREATE_TOPICS: lambda v: {"timeoutMs": 10000, "Topics": [
            {"Name": fresh("raw-every"), "NumPartitions": 1, "ReplicationFactor": 1}]},
        DELETE_TOPICS: lambda v: {"TimeoutMs": 10000, "TopicNames": [fresh("raw-no")],
                                  "Topics": [{"Name": fresh("raw-no")}]},
        DELETE_RECORDS: lambda v: {"TimeoutMs": 10000, "Topics": [
            {"Name": topic.name, "Partitions": [dict(one_partition, Offset=0)]}]},
        INIT_PRODUCER_ID: lambda v: {"TransactionalId": None, "TransactionTimeoutMs": 60000,
                                     "ProducerId": -1, "ProducerEpoch": -1},
        23: lambda v: {"ReplicaId": -1, "Topics": [{"Topic": topic.name, "Partitions": [
            dict(one_partition, CurrentLeaderEpoch=-1, LeaderEpoch=0)]}]},
        24: lambda v: {"V3AndBelowTransactionalId": "raw-none", "Transactions": [
            {"TransactionalId": "raw-none", "ProducerId": 1, "Topics": [
                {"Name": topic.name, "Partitions": [0]}]}]},
        29: lambda v: {"ResourceTypeFilter": 1, "PatternTypeFilter": 1, "Operation": 1, "PermissionType": 1},
        32: lambda v: {"Resources": [{"ResourceType": 2, "ResourceName": topic.name, "ConfigurationKeys": None}]},
        35: lambda v: {"Topics": None},
        37: lambda v: {"TimeoutMs": 10000, "ValidateOnly": True, "Topics": [
            {"Name": topic.name, "Count": 2, "Assignments": None}]},
        42: lambda v: {"GroupsNames": [fresh("raw-no")]},
        43: lambda v: {"TimeoutMs": 10000, "TopicPartitions": [{"Topic": topic.name, "Partitions": [0]}]},
        44: lambda v: {"ValidateOnly": True, "Resources": [
            {"ResourceType": 2, "ResourceName": topic.name, "Configs": [
                {"Name": "retention.ms", "ConfigOperation": 0, "Value": "86400000"}]}]},
        47: lambda v: {"GroupId": fresh("raw-no"), "Topics": []},
        60: lambda v: {"EndpointType": 1},
        61: lambda v: {"Topics": [{"Name": topic.name, "PartitionIndexes": [0]}]},
        64: lambda v: {"BrokerId": 9999},
        75: lambda v: {"Topics": [{"Name": topic.name}], "ResponsePartitionLimit": 10, "Cursor": None},
        94: lambda v: {"ControllerId": 9999},
    }


def errors_in(values):
    """Every error code anywhere in a response."""
    found = []
    if isinstance(values, dict):
        for name, value in values.items():
            found += [value] if name == "ErrorCode" else errors_in(value)
    elif isinstance(values, list):
        for value in values:
            found += errors_in(value)
    return found


# Keys whose request above must succeed, at every version.
MUST_SUCCEED = (PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, 15, 16,
                API_VERSIONS, CREATE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID, 23, 32, 35, 37, 44, 60, 61, 75)


@case
def every_api_every_version(broker):
    """Each offered key at each offered version answers a well-formed request with a message that
    decodes to its last byte."""
    topic = broker.topic()
    topic.produce([b"first"])
    bodies = every_api_bodies(broker, topic)
    coordinator = broker.coordinator(bodies[15](5)["Groups"][0])
    count, wrong = 0, []
    for key, (low, high) in sorted(broker.advertised().items()):
        for version in range(low, high + 1):
            count += 1
            where = topic.leader() if key not in (8, 9, 11, 12, 13, 14, 15, 42, 47) else coordinator
            try:
                got = broker.call_until(key, version, bodies.get(key, lambda v: {})(version), where)
                errors = [e for e in errors_in(got) if e != 0]
                # Kafka 4.4 says of a group that isn't there: v6 DescribeGroups 69.
                if key in MUST_SUCCEED and errors and not (key == 15 and version >= 6 and errors == [69]):
                    raise AssertionError(f"errors {errors}")
            except (AssertionError, ConnectionError, kmsg.Malformed, OSError, struct.error) as problem:
                wrong.append(f"{broker.schema.name(key)} v{version}: {problem}")
    print(f"{count} requests")
    if wrong:
        raise AssertionError("; ".join(wrong))


# The handlers of the engine, each from its first to its last version.
ENGINE = (0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 35, 37, 42, 44, 47, 60, 61, 75)


@case
def engine_apis_are_offered(broker):
    offered = broker.advertised()
    wrong = []
    for key in ENGINE:
        valid = broker.schema.requests[key].valid
        high = 5 if key == INIT_PRODUCER_ID else valid[1]
        if offered.get(key) != (valid[0], high):
            wrong.append(f"{broker.schema.name(key)} {offered.get(key)} instead of {(valid[0], high)}")
    if wrong:
        raise AssertionError("; ".join(wrong))


@case
def produce_fetch_versions(broker):
    topic = broker.topic()
    offered = broker.advertised()
    wanted = 0
    for version in range(offered[PRODUCE][0], offered[PRODUCE][1] + 1):
        got = topic.produce_raw(kmsg.batch([b"v%d" % version, (b"k", None)]), version=version)
        expect((got["ErrorCode"], got["BaseOffset"]), (0, wanted), f"Produce v{version}")
        wanted += 2
    for version in range(offered[FETCH][0], offered[FETCH][1] + 1):
        got = topic.fetch(1, version=version)
        expect(got["ErrorCode"], 0, f"Fetch v{version}")
        expect((got["HighWatermark"], got["LastStableOffset"]), (wanted, wanted), f"Fetch v{version} watermarks")
        spans = kmsg.batches(got["Records"])
        expect((spans[0][0], spans[-1][1]), (0, wanted - 1), f"Fetch v{version}: whole batches from the one asked for")


# ---- others, and the node, meanwhile ----
class Beside:
    """What a case does to others and to the node. With it, a connection of its own writes and asks all the
    time: no answer may take longer than `slowest` seconds. The node's memory may grow by `growth` MiB at
    most, and must come back to within `left` MiB. The runner tells in LEAT_PID which process that is; of a
    broker that is not known, or was built to be slow, only the answers are looked at."""

    def __init__(self, broker, slowest=2.0, growth=400, left=150):
        self.broker, self.limit, self.growth, self.left = broker, slowest * SLOWNESS, growth, left
        self.pid = int(os.environ.get("LEAT_PID", "0")) if SLOWNESS == 1 else 0
        self.worst, self.asked, self.peak, self.problem = 0.0, 0, 0.0, None
        self.over = threading.Event()

    def memory(self):
        if not self.pid:
            return 0.0
        with open(f"/proc/{self.pid}/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize() / 2**20

    def ask(self):
        try:
            with self.topic.connect() as c:
                c.socket.settimeout(60)
                while not self.over.wait(0.02):
                    start = time.monotonic()
                    c.call(API_VERSIONS, 0, {})
                    self.topic.produce_raw(kmsg.batch([b"beside"]), connection=c)
                    self.worst = max(self.worst, time.monotonic() - start)
                    self.asked += 1
                    self.peak = max(self.peak, self.memory())
        except Exception as problem:  # told at the end, in the case's own thread
            self.problem = problem

    def __enter__(self):
        self.topic = self.broker.topic(prefix="beside")
        self.before = self.memory()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        while not kind and not self.asked and self.thread.is_alive():
            time.sleep(0.01)
        self.over.set()
        self.thread.join()
        if kind:
            return
        if self.problem or not self.asked:
            raise AssertionError(f"a connection beside it was not served: {self.problem}")
        if self.worst > self.limit:
            raise AssertionError(f"a connection beside it waited {self.worst:.2f} s")
        if self.peak > self.before + self.growth:
            raise AssertionError(f"the node grew from {self.before:.0f} to {self.peak:.0f} MiB")
        if self.pid:
            wait_for(lambda: self.memory() <= self.before + self.left,
                     f"memory near the {self.before:.0f} MiB from before", 30)
        print(f"beside it: {self.asked} round trips, slowest {self.worst * 1000:.0f} ms; memory "
              f"{self.before:.0f}, peak {self.peak:.0f}, after {self.memory():.0f} MiB")


def gauge(name):
    """A value of the node's metrics summed over its shards; None when the runner named no admin endpoint."""
    admin = os.environ.get("LEAT_ADMIN")
    if not admin:
        return None
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().split("\n")
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))


def leave_hard(c):
    """With a reset."""
    c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()


# ---- broken frames ----
def closes(broker, data, what):
    with broker.connect() as c:
        c.send_raw(data)
        expect(c.read_frame(), None, f"answer to {what}")


@case
def oversized_frame(broker):
    closes(broker, struct.pack(">i", 0x7FFFFFFF) + bytes(100), "a frame of 2 GiB")
    closes(broker, struct.pack(">i", 104857601), "a frame one byte over the limit")


@case
def negative_size(broker):
    closes(broker, struct.pack(">i", -1), "size -1")
    closes(broker, struct.pack(">i", -0x80000000), "size -2^31")


@case
def empty_and_tiny_frames(broker):
    for size in range(0, 8):
        closes(broker, struct.pack(">i", size) + bytes([0, 18, 0, 0, 0, 0, 0, 1])[:size], f"a frame of {size} bytes")


@case
def truncated_frame(broker):
    request = broker.schema.request(METADATA, 12, {"Topics": None})
    for cut in (1, 2, 3, 4, 5, 8, len(request) - 1):
        with broker.connect() as c:
            c.send_raw((struct.pack(">i", len(request)) + request)[:cut])
    # A frame that says it ends before its message does.
    for cut in range(1, len(request) - 9):
        with broker.connect() as c:
            c.send_frame(request[:-cut])
            expect(c.read_frame(), None, f"answer to a request {cut} bytes short")


@case
def wrong_crc(broker):
    topic = broker.topic()
    got = topic.produce_raw(kmsg.batch([b"x"], crc_xor=1))
    expect(got["ErrorCode"], 2, "error")
    got = topic.produce_raw(kmsg.batch([b"x"], crc_xor=0x80000000), version=3)
    expect(got["ErrorCode"], 2, "error v3")
    expect(topic.list_offset(-1)["Offset"], 0, "log end afterwards")


@case
def absurd_counts(broker):
    head = struct.pack(">hhih", METADATA, 1, 1, -1)
    for count in (0x7FFFFFFF, 0x10000000, 1000000):
        closes(broker, frame(head + struct.pack(">i", count)), f"{count} topics")
    flexible = struct.pack(">hhih", METADATA, 12, 1, -1) + b"\0"
    for count in (b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"):
        closes(broker, frame(flexible + count), f"compact count {count.hex()}")
    # Strings longer than the frame.
    closes(broker, frame(head + struct.pack(">ih", 1, 32767) + b"x"), "a string longer than the frame")
    closes(broker, frame(flexible + b"\x02" + bytes(16) + b"\xff\xff\x03x"), "a compact string longer than the frame")
    # A header whose client id runs over the end.
    closes(broker, frame(struct.pack(">hhih", METADATA, 1, 1, 32000)), "a client id longer than the frame")
    # Produce with a record set longer than the frame.
    closes(broker, frame(struct.pack(">hhihhhiihiii", PRODUCE, 3, 1, -1, -1, 1, 1000, 1, 0, 1, 0, 0x7FFFFFF0)),
           "a record set longer than the frame")


@case
def absurd_numbers_at_every_depth(broker):
    """At each position of good requests a number that no request should have: every count, length and
    value there is, at every depth. Each is answered or closed."""
    topic = broker.topic()
    bodies = every_api_bodies(broker, topic)
    ranges = broker.advertised()
    sent = 0
    with Beside(broker):
        for key in sorted(set(bodies) & set(ranges) & set(ENGINE) - {JOIN, DELETE_TOPICS}):
            for version in {ranges[key][0], ranges[key][1]}:
                good = broker.schema.request(key, version, bodies[key](version))
                absurd = [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\x0f"]
                for at in range(10, len(good)):
                    bad = absurd[at % 3]
                    sent += 1
                    with broker.connect(topic.leader()) as c:
                        c.send_frame(good[:at] + bad + good[at + len(bad):])
                        c.socket.shutdown(socket.SHUT_WR)
                        c.socket.settimeout(0.2)  # it may have become a long poll
                        try:
                            c.read_frame()
                        except (OSError, kmsg.Malformed):
                            pass
    print(f"{sent} requests")


@case
def many_elements(broker):
    """Requests that are good, but of very many parts: others must not wait for them to be compared."""
    n = 20000
    names = [f"none-{i}" for i in range(n)]
    topic = broker.topic()
    group = fresh("raw-many")
    requests = [
        (CREATE_TOPICS, 7, {"timeoutMs": 1000, "validateOnly": True, "Topics": [
            {"Name": name, "NumPartitions": 1, "ReplicationFactor": 1} for name in names]}),
        (CREATE_TOPICS, 7, {"timeoutMs": 1000, "validateOnly": True, "Topics": [
            {"Name": "many", "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": [
                {"PartitionIndex": n - i, "BrokerIds": [1]} for i in range(n)]}]}),
        (DELETE_TOPICS, 5, {"TimeoutMs": 1000, "TopicNames": names}),
        (37, 3, {"TimeoutMs": 1000, "ValidateOnly": True, "Topics": [
            {"Name": name, "Count": 2, "Assignments": None} for name in names]}),
        (METADATA, 12, {"AllowAutoTopicCreation": False, "Topics": [{"Name": name} for name in names]}),
        (LIST_OFFSETS, 7, {"ReplicaId": -1, "Topics": [
            {"Name": topic.name, "Partitions": [{"PartitionIndex": i, "Timestamp": -1} for i in range(n)]}]}),
        (FETCH, 12, {"ReplicaId": -1, "MaxWaitMs": 0, "MaxBytes": 1 << 20, "SessionEpoch": -1, "Topics": [
            {"Topic": topic.name, "Partitions": [{"Partition": i, "PartitionMaxBytes": 1000} for i in range(n)]}]}),
        (FETCH, 12, {"ReplicaId": -1, "MaxWaitMs": 0, "MaxBytes": 1 << 20, "SessionEpoch": 0, "Topics": [
            {"Topic": topic.name, "Partitions": [{"Partition": i, "PartitionMaxBytes": 1000} for i in range(n)]}]}),
        (OFFSET_COMMIT, 8, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": [
            {"Name": topic.name, "Partitions": [{"PartitionIndex": i, "CommittedOffset": 1} for i in range(n)]}]}),
        (OFFSET_FETCH, 7, {"GroupId": group, "Topics": [
            {"Name": topic.name, "PartitionIndexes": list(range(n))}]}),
        (JOIN, 9, {"GroupId": group, "SessionTimeoutMs": 6000, "RebalanceTimeoutMs": 500, "ProtocolType": "consumer",
                   "Protocols": [{"Name": name, "Metadata": b""} for name in names]}),
        (15, 5, {"Groups": names}),
        (42, 2, {"GroupsNames": names}),
        (FIND_COORDINATOR, 4, {"KeyType": 0, "CoordinatorKeys": names}),
        (32, 4, {"Resources": [{"ResourceType": 2, "ResourceName": name} for name in names]}),
        (32, 4, {"Resources": [{"ResourceType": 2, "ResourceName": topic.name, "ConfigurationKeys": names}]}),
        (44, 1, {"ValidateOnly": True, "Resources": [
            {"ResourceType": 2, "ResourceName": name, "Configs": []} for name in names]}),
        (44, 1, {"ValidateOnly": True, "Resources": [{"ResourceType": 2, "ResourceName": topic.name, "Configs": [
            {"Name": name, "ConfigOperation": 0, "Value": "1"} for name in names]}]}),
        (DELETE_RECORDS, 2, {"TimeoutMs": 1000, "Topics": [
            {"Name": topic.name, "Partitions": [{"PartitionIndex": i, "Offset": 0} for i in range(n)]}]}),
        (23, 4, {"ReplicaId": -1, "Topics": [{"Topic": topic.name, "Partitions": [
            {"Partition": i, "LeaderEpoch": 0} for i in range(n)]}]}),
        (61, 0, {"Topics": [{"Name": topic.name, "PartitionIndexes": list(range(n))}]}),
        (35, 4, {"Topics": [{"Topic": name, "Partitions": [0]} for name in names]}),
        (75, 0, {"Topics": [{"Name": name} for name in names], "ResponsePartitionLimit": 2000, "Cursor": None}),
        (LEAVE, 5, {"GroupId": group, "Members": [{"MemberId": name} for name in names]}),
    ]
    slow, closed = [], []
    for key, version, values in requests:
        with Beside(broker, slowest=1.5):
            start = time.monotonic()
            with broker.connect(timeout=60) as c:
                c.send(key, version, values)
                if not c.read_frame():
                    closed.append(broker.schema.name(key))
            took = time.monotonic() - start
        if took > 5 * SLOWNESS:
            slow.append(f"{broker.schema.name(key)} took {took:.1f} s")
    expect(slow, [], "slow answers")
    expect(closed, [], "closed instead of answered")


def frame(payload):
    return struct.pack(">i", len(payload)) + payload


@case
def trailing_bytes(broker):
    """Bytes after a message: Kafka ignores them, for it reads by the definition."""
    with broker.connect() as c:
        c.send_frame(broker.schema.request(METADATA, 12, {"Topics": []}, 5) + b"trailing")
        got = c.receive(METADATA, 12)
        expect(got and got[0], 5, "correlation of the answer")


@case
def unknown_tagged_fields(broker):
    with broker.connect() as c:
        head = struct.pack(">hhihB", METADATA, 12, 1, -1, 1) + b"\x63\x03abc"  # tag 99 in the header
        c.send_frame(head + b"\x01" + b"\x01\x00" + b"\x02\x32\x01x\x33\x00")
        got = c.receive(METADATA, 12)
        expect(got and got[0], 1, "correlation of the answer")


@case
def random_bytes(broker):
    chance = random.Random(4)
    with Beside(broker):
        for _ in range(300):
            with broker.connect() as c:
                data = chance.randbytes(chance.choice((1, 3, 4, 5, 17, 200, 5000)))
                try:
                    c.send_raw(data)
                    if chance.random() < 0.5:
                        c.send_raw(chance.randbytes(100))
                except (ConnectionResetError, BrokenPipeError):
                    pass


@case
def random_bodies(broker):
    """Valid sizes and headers with random bodies: each is answered or closed, never hung."""
    chance = random.Random(5)
    offered = [(k, v) for k, (low, high) in broker.advertised().items() for v in range(low, high + 1)
               if k in ENGINE and k not in (JOIN, FETCH, SYNC)]
    for _ in range(500):
        key, version = chance.choice(offered)
        with broker.connect(timeout=30) as c:
            payload = struct.pack(">hhih", key, version, 1, -1)
            if broker.schema.flexible(key, version):
                payload += b"\0"
            c.send_frame(payload + chance.randbytes(chance.choice((0, 1, 2, 8, 30, 300))))
            c.socket.shutdown(socket.SHUT_WR)
            while c.read_frame() is not None:
                pass


@case
def mutated_requests(broker):
    """Good requests with a byte or two changed."""
    chance = random.Random(6)
    topic = broker.topic()
    bodies = every_api_bodies(broker, topic)
    offered = [(k, v) for k, (low, high) in broker.advertised().items() for v in range(low, high + 1)
               if k in bodies and k in ENGINE and k not in (JOIN, CREATE_TOPICS, DELETE_TOPICS, 37)]
    for _ in range(500):
        key, version = chance.choice(offered)
        data = bytearray(broker.schema.request(key, version, bodies[key](version)))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(8, len(data))] = chance.randrange(256)
        with broker.connect(topic.leader(), timeout=30) as c:
            c.send_frame(bytes(data))
            c.socket.shutdown(socket.SHUT_WR)
            c.socket.settimeout(2)  # a fetch may have become a long poll: fine
            try:
                while c.read_frame() is not None:
                    pass
            except (TimeoutError, socket.timeout, kmsg.Malformed):
                pass


@case
def mutated_batches(broker):
    """Record batches with broken insides and a right checksum: an error, or stored as they are."""
    chance = random.Random(7)
    topic = broker.topic()
    for round_number in range(300):
        data = bytearray(kmsg.batch([b"a", (b"k", b"v" * 20), b""], gzip=bool(round_number & 1)))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        struct.pack_into(">I", data, 17, kmsg.crc32c(bytes(data[21:])))
        if chance.random() < 0.2:
            data = data[:chance.randrange(len(data))]
        try:
            topic.produce_raw(bytes(data))
        except ConnectionError:
            pass


# ---- slow and many ----
@case
def slow_loris(broker):
    """A request at one byte per 100 ms is answered in the end, and does not hamper others."""
    request = frame(broker.schema.request(API_VERSIONS, 0, {}, 3))
    answers = []

    def drip():
        with broker.connect(timeout=60) as c:
            for byte in request:
                c.send_raw(bytes([byte]))
                time.sleep(0.1)
            answers.append(c.receive(API_VERSIONS, 0))

    threads = [threading.Thread(target=drip) for _ in range(50)]
    with Beside(broker, slowest=1.0):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expect(len([a for a in answers if a and a[0] == 3]), 50, "drip-fed requests answered")


@case
def never_reads(broker):
    """Clients that ask for megabytes again and again and never read an answer."""
    topic = broker.topic()
    for _ in range(8):
        topic.produce([os.urandom(900 << 10)])
    request = frame(broker.schema.request(FETCH, 12, topic.fetch_request(0, maximum=50 << 20)))
    held = []
    try:
        with Beside(broker):
            for _ in range(100):
                c = topic.connect()
                held.append(c)
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                c.socket.settimeout(0.05)
                try:
                    for _ in range(200):
                        c.send_raw(request)
                except (TimeoutError, socket.timeout, OSError):
                    pass  # it is not read any more: what this is about
            time.sleep(3)
            for c in held:
                leave_hard(c)
            held = []
    finally:
        for c in held:
            c.close()


@case
def abandoned_long_polls(broker):
    """Fetches and joins that want to wait for weeks, from clients that leave, also behind a bad request."""
    topic = broker.topic()
    weeks = 0x7FFFFFFF
    with Beside(broker):
        for number in range(300):
            c = topic.connect()
            for _ in range(10):
                c.send(FETCH, 12, topic.fetch_request(0, wait=weeks, minimum=1 << 30))
            c.send(JOIN, 3, {"GroupId": f"raw-abandoned-{number % 7}", "SessionTimeoutMs": 6000,
                             "RebalanceTimeoutMs": weeks, "ProtocolType": "consumer",
                             "Protocols": [{"Name": "range", "Metadata": b""}]})
            if number % 3 == 0:
                c.send_raw(frame(b"\xff" * 20))
            if number % 2:
                leave_hard(c)
            else:
                c.close()
        if gauge("leat_requests_inflight") is not None:
            wait_for(lambda: gauge("leat_fetch_waiting") == 0, "the long polls' end")
            wait_for(lambda: gauge("leat_requests_inflight") < 5, "the requests' end")


@case
def pipelined_thousands(broker):
    """20,000 requests on one connection before the first answer is read."""
    with Beside(broker), broker.connect(timeout=60) as c:
        request = broker.schema.request(API_VERSIONS, 0, {})
        total = 20000
        data = b"".join(frame(request[:4] + struct.pack(">i", n) + request[8:]) for n in range(total))
        sender = threading.Thread(target=c.send_raw, args=(data,))
        sender.start()
        time.sleep(1)
        for number in range(total):
            got = c.receive(API_VERSIONS, 0)
            expect(got and got[0], number, "correlation")
        sender.join()


@case
def half_open_connections(broker):
    """10,000 connections that send half a frame and stay: others go on, and the memory comes back."""
    wanted = int(os.environ.get("LEAT_HALF_OPEN", "10000"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard - 200)
    held = []
    try:
        with Beside(broker) as beside:
            for number in range(wanted):
                s = socket.create_connection(broker.address, timeout=30)
                s.sendall(b"\0\0\0\x40\0\x12"[:number % 7])
                held.append(s)
            already = beside.asked
            wait_for(lambda: beside.asked > already + 100, "100 round trips beside them all")
            for s in held:
                s.close()
    finally:
        for s in held:
            s.close()
    print(f"{wanted} connections were held")


@case
def connect_and_leave(broker):
    for _ in range(2000):
        socket.create_connection(broker.address, timeout=15).close()


@case
def reset_with_an_answer_under_way(broker):
    """The peer resets while a large answer is being sent."""
    topic = broker.topic()
    for _ in range(8):
        topic.produce([os.urandom(900 << 10)])
    with Beside(broker):
        for _ in range(50):
            c = topic.connect()
            c.send(FETCH, 12, topic.fetch_request(0, maximum=50 << 20))
            c.socket.recv(1000)
            leave_hard(c)


@case
def reset_in_long_poll(broker):
    topic = broker.topic()
    for _ in range(200):
        c = topic.connect()
        c.send(FETCH, 12, topic.fetch_request(0, wait=30000))
        c.close()
    topic.produce([b"wakes them all"])


# ---- order and acknowledgement ----
@case
def pipelined_in_order(broker):
    topic = broker.topic(4)
    addresses = set(topic.leaders.values())
    for address in addresses:
        mine = [p for p, a in topic.leaders.items() if a == address]
        with broker.connect(address) as c:
            sent = []
            for number in range(400):
                p = mine[number % len(mine)]
                kind = number % 4
                if kind == 0:
                    request = (PRODUCE, 9, topic.produce_request(kmsg.batch([b"%d" % number]), p))
                elif kind == 1:
                    request = (API_VERSIONS, 0, {})
                elif kind == 2:
                    # Waits a little where nothing has come yet: later answers may not overtake it.
                    request = (FETCH, 12, topic.fetch_request(number // 8, p, wait=5))
                else:
                    request = (METADATA, 9, {"Topics": [{"Name": topic.name}]})
                sent.append((c.send(*request), request))
            for wanted, (key, version, _) in sent:
                got = c.receive(key, version)
                expect(got and got[0], wanted, "correlation")


@case
def produce_order_on_one_connection(broker):
    topic = broker.topic()
    with topic.connect() as c:
        sent = [c.send(PRODUCE, 9, topic.produce_request(kmsg.batch([b"%d" % n]))) for n in range(200)]
        for number, correlation in enumerate(sent):
            got = c.receive(PRODUCE, 9)
            expect(got[0], correlation, "correlation")
            answer = got[1]["Responses"][0]["PartitionResponses"][0]
            expect((answer["ErrorCode"], answer["BaseOffset"]), (0, number), "offset")


@case
def acks_zero(broker):
    topic = broker.topic()
    with topic.connect() as c:
        c.send(PRODUCE, 9, topic.produce_request(kmsg.batch([b"unanswered"]), acks=0))
        wanted = c.send(API_VERSIONS, 0, {})
        got = c.receive(API_VERSIONS, 0)
        expect(got[0], wanted, "first answer on the connection")
    wait_for(lambda: topic.list_offset(-1)["Offset"] == 1, "the record to be stored")
    # An error with acks=0 closes the connection: there is no other way to tell the client.
    with topic.connect() as c:
        c.send(PRODUCE, 9, topic.produce_request(kmsg.batch([b"x"], crc_xor=1), acks=0))
        expect(c.read_frame(), None, "answer to a failed acks=0 request")


def wait_for(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


@case
def invalid_acks(broker):
    topic = broker.topic()
    got = topic.produce_raw(kmsg.batch([b"x"]), acks=2)
    expect((got["ErrorCode"], got["BaseOffset"]), (21, -1), "acks=2")


@case
def produce_errors(broker):
    topic = broker.topic()
    name, topic.name = topic.name, fresh("raw-no")
    got = broker.call(PRODUCE, 12, topic.produce_request(kmsg.batch([b"x"])), topic.leader())
    expect(got["Responses"][0]["PartitionResponses"][0]["ErrorCode"], 3, "unknown topic")
    topic.name = name
    got = broker.call(PRODUCE, 12, topic.produce_request(kmsg.batch([b"x"]), 7), topic.leader())
    expect(got["Responses"][0]["PartitionResponses"][0]["ErrorCode"], 3, "unknown partition")
    topic_id, topic.id = topic.id, uuid.uuid4().bytes
    got = broker.call(PRODUCE, 13, topic.produce_request(kmsg.batch([b"x"])), topic.leader())
    expect(got["Responses"][0]["PartitionResponses"][0]["ErrorCode"], 100, "unknown topic id")
    topic.id = topic_id
    expect(topic.produce_raw(kmsg.batch([os.urandom(1 << 20)]))["ErrorCode"], 10, "more than max.message.bytes")
    expect(topic.produce_raw(kmsg.batch([b"a", b"b"], count=3))["ErrorCode"], 87, "fewer records than counted")
    zstd = kmsg.batch([b"a"], attributes=4)
    expect(topic.produce_raw(zstd, version=6)["ErrorCode"], 76, "zstd before v7")
    expect(topic.produce_raw(kmsg.batch([b"a"]) + kmsg.batch([b"b"]))["ErrorCode"], 87, "two batches in one request")
    expect(topic.list_offset(-1)["Offset"], 0, "log end after refused batches")


@case
def old_message_format(broker):
    topic = broker.topic()
    tail = struct.pack(">bbqi", 1, 0, 1700000000000, -1) + struct.pack(">i", 1) + b"x"
    import zlib
    message = struct.pack(">qiI", 0, len(tail) + 4, zlib.crc32(tail)) + tail
    got = topic.produce_raw(message, version=9)
    if got["ErrorCode"] == 0:
        raise AssertionError("a message of format 1 was accepted by Produce v9")
    expect(topic.list_offset(-1)["Offset"], 0, "log end afterwards")


# ---- idempotence ----
@case
def idempotent_sequences(broker):
    topic = broker.topic()
    got = broker.call_until(INIT_PRODUCER_ID, 4, {"TransactionalId": None, "TransactionTimeoutMs": 60000,
                                            "ProducerId": -1, "ProducerEpoch": -1})
    expect((got["ErrorCode"], got["ProducerEpoch"]), (0, 0), "InitProducerId")
    pid = got["ProducerId"]

    def send(sequence, epoch=0, count=2):
        got = topic.produce_raw(kmsg.batch([b"%d" % sequence] * count, producer=pid, epoch=epoch, sequence=sequence))
        return got["ErrorCode"], got["BaseOffset"]

    for number in range(7):
        expect(send(number * 2), (0, number * 2), f"batch {number}")
    for number in range(2, 7):
        expect(send(number * 2), (0, number * 2), f"batch {number} again: answered as the first time")
    expect(send(0)[0], 45, "a duplicate older than five batches")
    expect(send(20)[0], 45, "a gap in the sequence")
    expect(send(12, count=1)[0], 45, "a part of a batch sent before")
    expect(topic.list_offset(-1)["Offset"], 14, "log end after duplicates")
    expect(send(0, epoch=1), (0, 14), "a new epoch starts at 0")
    expect(send(16, epoch=0)[0], 47, "the old epoch")
    expect(send(5, epoch=2)[0], 45, "a new epoch that starts elsewhere")
    expect(topic.list_offset(-1)["Offset"], 16, "log end")
    described = broker.call(61, 0, {"Topics": [{"Name": topic.name, "PartitionIndexes": [0]}]}, topic.leader())
    active = described["Topics"][0]["Partitions"][0]["ActiveProducers"]
    expect([(p["ProducerId"], p["ProducerEpoch"], p["LastSequence"]) for p in active], [(pid, 1, 1)], "producers")


@case
def producer_ids_are_unique(broker):
    request = {"TransactionalId": None, "TransactionTimeoutMs": 60000, "ProducerId": -1, "ProducerEpoch": -1}
    with broker.connect() as c:
        answers = [c.call(INIT_PRODUCER_ID, 5, request) for _ in range(3000)]
    # While the next block of ids is fetched, "try again" is a right answer.
    expect({a["ErrorCode"] for a in answers} - {0, 14}, set(), "errors")
    ids = [a["ProducerId"] for a in answers if a["ErrorCode"] == 0]
    expect(len(set(ids)), len(ids), "distinct ids")
    if len(ids) < 2900:
        raise AssertionError(f"only {len(ids)} of 3000 requests got an id")


# ---- fetch ----
@case
def fetch_long_poll(broker):
    topic = broker.topic()
    start = time.monotonic()
    got = topic.fetch(0, wait=700)
    took = time.monotonic() - start
    expect((got["ErrorCode"], got["Records"] or b""), (0, b""), "an empty fetch")
    if not 0.6 < took < 5:
        raise AssertionError(f"a fetch of 700 ms took {took:.2f} s")
    timer = threading.Timer(0.3, lambda: topic.produce([b"wakes it"]))
    timer.start()
    start = time.monotonic()
    got = topic.fetch_batches(0, wait=20000)
    took = time.monotonic() - start
    timer.join()
    expect(len(got), 1, "batches")
    if took > 5:
        raise AssertionError(f"a record woke the fetch after {took:.2f} s")


@case
def fetch_min_bytes(broker):
    topic = broker.topic()
    topic.produce([b"x" * 100])
    start = time.monotonic()
    got = topic.fetch_batches(0, wait=600, minimum=100000)
    took = time.monotonic() - start
    expect(len(got), 1, "batches, though fewer bytes than asked for")
    if took < 0.5:
        raise AssertionError(f"answered after {took:.2f} s with too few bytes")


@case
def fetch_limits(broker):
    topic = broker.topic()
    for _ in range(10):
        topic.produce([os.urandom(10000)])
    got = topic.fetch(0, maximum=1)
    expect(len(kmsg.batches(got["Records"])), 1, "batches under a limit of 1 byte: the first one whole")
    got = topic.fetch(0, maximum=25000)
    count = len(kmsg.batches(got["Records"]))
    expect(count in (2, 3), True, f"batches under a limit of 25,000 bytes ({count})")
    got = topic.fetch(10, wait=0)
    expect((got["ErrorCode"], got["Records"] or b""), (0, b""), "at the end")


@case
def fetch_errors(broker):
    topic = broker.topic()
    topic.produce([b"x"])
    for offset in (2, 1000, -1):
        expect(topic.fetch(offset, wait=0)["ErrorCode"], 1, f"offset {offset}")
    got = broker.call(FETCH, 12, topic.fetch_request(0, partition=9, wait=0), topic.leader())
    expect(got["Responses"][0]["Partitions"][0]["ErrorCode"], 3, "unknown partition")
    topic.id = uuid.uuid4().bytes
    got = broker.call(FETCH, 16, topic.fetch_request(0, wait=0), topic.leader())
    expect(got["Responses"][0]["Partitions"][0]["ErrorCode"], 100, "unknown topic id")


@case
def fetch_leader_epoch(broker):
    topic = broker.topic()
    topic.produce([b"x"])
    request = topic.fetch_request(0)
    request["Topics"][0]["Partitions"][0]["CurrentLeaderEpoch"] = 1000
    got = broker.call(FETCH, 16, request, topic.leader())
    expect(got["Responses"][0]["Partitions"][0]["ErrorCode"], 75, "an epoch from the future")
    epoch = topic.list_offset(-1)["LeaderEpoch"]
    for _ in range(2):
        got = broker.call(23, 4, {"ReplicaId": -1, "Topics": [{"Topic": topic.name, "Partitions": [
            {"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": epoch}]}]}, topic.leader())
    answer = got["Topics"][0]["Partitions"][0]
    expect((answer["ErrorCode"], answer["LeaderEpoch"], answer["EndOffset"]), (0, epoch, 1), "end of the epoch")
    got = broker.call(23, 4, {"ReplicaId": -1, "Topics": [{"Topic": topic.name, "Partitions": [
        {"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 1000}]}]}, topic.leader())
    answer = got["Topics"][0]["Partitions"][0]
    expect((answer["ErrorCode"], answer["LeaderEpoch"], answer["EndOffset"]), (0, -1, -1), "an unknown epoch")


@case
def fetch_sessions(broker):
    topic = broker.topic(2)
    if topic.leader(0) != topic.leader(1):
        topic = broker.topic(1)
    parts = sorted(topic.leaders)
    with topic.connect() as c:
        request = topic.fetch_request(0, wait=0, session=0, epoch=0)
        one = request["Topics"][0]["Partitions"][0]
        request["Topics"][0]["Partitions"] = [dict(one, Partition=p) for p in parts]
        got = c.call(FETCH, 16, request)
        session = got["SessionId"]
        expect((got["ErrorCode"], session != 0), (0, True), "a session is opened")
        expect(len(got["Responses"][0]["Partitions"]), len(parts), "partitions in a full answer")
        nothing = dict(request, SessionId=session, SessionEpoch=1, Topics=[])
        got = c.call(FETCH, 16, nothing)
        expect((got["ErrorCode"], got["SessionId"], got["Responses"]), (0, session, []), "nothing new")
        topic.produce([b"new"], parts[-1])
        got = c.call(FETCH, 16, dict(nothing, SessionEpoch=2, MaxWaitMs=5000))
        expect([p["PartitionIndex"] for t in got["Responses"] for p in t["Partitions"]], [parts[-1]], "what is new")
        # Offset moved on through the session, nothing else repeated.
        moved = dict(one, Partition=parts[-1], FetchOffset=1)
        got = c.call(FETCH, 16, dict(nothing, SessionEpoch=3, Topics=[dict(request["Topics"][0], Partitions=[moved])]))
        expect(got["Responses"], [], "after moving on")
        got = c.call(FETCH, 16, dict(nothing, SessionEpoch=4, ForgottenTopicsData=[
            {"Topic": topic.name, "TopicId": topic.id, "Partitions": [parts[-1]]}]))
        expect(got["ErrorCode"], 0, "forgetting a partition")
        topic.produce([b"unseen"], parts[-1])
        got = c.call(FETCH, 16, dict(nothing, SessionEpoch=5))
        expect(got["Responses"], [], "a forgotten partition stays quiet")
        expect(c.call(FETCH, 16, dict(nothing, SessionEpoch=9))["ErrorCode"], 71, "a wrong epoch")
        expect(c.call(FETCH, 16, dict(nothing, SessionId=session ^ 0x5555, SessionEpoch=1))["ErrorCode"], 70,
               "an unknown session")
        # Epoch -1 closes the session.
        got = c.call(FETCH, 16, dict(request, SessionId=session, SessionEpoch=-1))
        expect((got["ErrorCode"], got["SessionId"]), (0, 0), "closing")
        expect(c.call(FETCH, 16, dict(nothing, SessionEpoch=1))["ErrorCode"], 70, "after closing")


# ---- offsets, records ----
@case
def list_offsets(broker):
    topic = broker.topic()
    empty = topic.list_offset(-3)
    expect((empty["ErrorCode"], empty["Offset"], empty["Timestamp"]), (0, -1, -1), "max timestamp of nothing")
    for number, stamp in enumerate((1000, 3000, 2000)):
        topic.produce([b"%d" % number], timestamp=1700000000000 + stamp)
    low, high = broker.advertised()[LIST_OFFSETS]
    for version in range(low, high + 1):
        for stamp, offset in ((-1, 3), (-2, 0), (1700000000000, 0), (1700000001001, 1), (1700000003000, 1),
                              (1700000003001, -1)):
            got = topic.list_offset(stamp, version=version)
            expect((got["ErrorCode"], got["Offset"]), (0, offset), f"v{version} timestamp {stamp}")
        if version >= 7:
            got = topic.list_offset(-3, version=version)
            expect((got["Offset"], got["Timestamp"]), (1, 1700000003000), f"v{version} max timestamp")
        if version >= 8:
            expect(topic.list_offset(-4, version=version)["Offset"], 0, f"v{version} earliest local")
        if version >= 9:
            expect(topic.list_offset(-5, version=version)["Offset"], -1, f"v{version} latest tiered")
    # A version that does not know a special timestamp refuses it.
    expect(topic.list_offset(-3, version=6)["ErrorCode"], 35, "max timestamp in v6")


@case
def list_offsets_of_tiers(broker):
    """-4, -5 and -6 of a topic with remote.storage.enable, while its data goes to the object store."""
    topic = broker.topic(configs=[("remote.storage.enable", "true"), ("local.retention.ms", "60000")])

    def offsets(version=11):
        got = [topic.list_offset(stamp, version=version) for stamp in (-4, -5, -6)]
        if topic.list_offset(-5, version=version)["Offset"] != got[1]["Offset"]:
            return offsets(version)  # an upload ended between the questions
        for r in got:
            expect((r["ErrorCode"], r["Timestamp"]), (0, -1), "a special timestamp")
            expect(r["LeaderEpoch"] >= 0, r["Offset"] >= 0, "an epoch only with an offset")
        return [r["Offset"] for r in got]

    expect(offsets(), [0, -1, 0], "of nothing")
    for number in range(3):
        topic.produce([b"%d" % number])
    seen = set()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        local, tiered, pending = offsets()
        seen.add((tiered, pending))
        expect(pending, tiered + 1, "what waits begins where the rest ends")
        expect(0 <= local <= 3 and -1 <= tiered <= 2 and local <= pending, True, f"{local} {tiered} {pending}")
        if tiered == 2:
            break
        time.sleep(0.05)
    expect((2, 3) in seen, True, f"nothing was uploaded: {seen}")
    topic.produce([b"3"])
    local, tiered, pending = offsets()
    expect((local <= 3, tiered in (2, 3), pending == tiered + 1), (True, True, True), f"{local} {tiered} {pending}")
    # Without it, the same log: local from the start, nothing tiered.
    expect(altered(broker, (2, topic.name, [("remote.storage.enable", 0, "false")])), [0], "disabling")
    expect(offsets(), [0, -1, -1], "of a topic without tiered storage")
    expect(topic.list_offset(-2)["Offset"], 0, "nothing was deleted")
    expect(altered(broker, (2, topic.name, [("remote.storage.enable", 0, "true"), ("retention.ms", 0, "50000")])), [40],
           "more local than all")


@case
def delete_records(broker):
    topic = broker.topic()
    for number in range(10):
        topic.produce([b"%d" % number])

    def delete(offset):
        got = broker.call(DELETE_RECORDS, 2, {"TimeoutMs": 10000, "Topics": [{"Name": topic.name, "Partitions": [
            {"PartitionIndex": 0, "Offset": offset}]}]}, topic.leader())
        answer = got["Topics"][0]["Partitions"][0]
        return answer["ErrorCode"], answer["LowWatermark"]

    expect(delete(4), (0, 4), "up to 4")
    expect(topic.list_offset(-2)["Offset"], 4, "earliest")
    expect(topic.fetch(3, wait=0)["ErrorCode"], 1, "fetch below the start")
    expect(topic.fetch_batches(4)[0][0], 4, "fetch at the start")
    expect(delete(2), (0, 4), "going back is not an error")
    expect(delete(11)[0], 1, "beyond the end")
    expect(delete(-1), (0, 10), "everything")
    expect(topic.list_offset(-2)["Offset"], 10, "earliest")
    expect(topic.produce([b"next"]), 10, "offset of the next record")


# ---- topics ----
@case
def topic_errors(broker):
    topic = broker.topic()

    def create(name, partitions=1, replication=1, configs=(), assignments=()):
        got = broker.call(CREATE_TOPICS, 7, {"timeoutMs": 10000, "Topics": [
            {"Name": name, "NumPartitions": partitions, "ReplicationFactor": replication,
             "Assignments": list(assignments), "Configs": [{"Name": k, "Value": v} for k, v in configs]}]})
        return got["Topics"][0]["ErrorCode"]

    expect(create(topic.name), 36, "a topic that exists")
    for name in ("", ".", "..", "bad name", "bad/name", "x" * 250, "\u00e9"):
        expect(create(name), 17, f"the name {name[:10]!r}")
    expect(create(fresh("raw"), partitions=0), 37, "no partitions")
    expect(create(fresh("raw"), replication=3), 38, "three replicas on one broker")
    expect(create(fresh("raw"), replication=0), 38, "no replicas")
    expect(create(fresh("raw"), configs=[("no.such.config", "1")]), 40, "an unknown config")
    expect(create(fresh("raw"), configs=[("retention.ms", "soon")]), 40, "a bad config value")
    expect(create(fresh("raw"), configs=[("cleanup.policy", "burn")]), 40, "a bad config choice")
    got = broker.call(DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [{"Name": fresh("raw-no")}]})
    expect(got["Responses"][0]["ErrorCode"], 3, "deleting what is not there")
    got = broker.call(DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [{"Name": None, "TopicId": b"\x07" * 16}]})
    expect(got["Responses"][0]["ErrorCode"], 100, "deleting an unknown id")
    got = broker.call(37, 3, {"TimeoutMs": 10000, "Topics": [{"Name": topic.name, "Count": 1, "Assignments": None}]})
    expect(got["Results"][0]["ErrorCode"], 37, "as many partitions as there are")
    got = broker.call(METADATA, 12, {"Topics": [{"Name": "bad name"}], "AllowAutoTopicCreation": True})
    expect(got["Topics"][0]["ErrorCode"], 17, "metadata of a bad name")


@case
def topic_ids(broker):
    topic = broker.topic()
    got = broker.call(METADATA, 12, {"Topics": [{"TopicId": topic.id, "Name": None}]})
    expect(got["Topics"][0]["Name"], topic.name, "name found by id")
    got = broker.call(METADATA, 12, {"Topics": [{"TopicId": b"\x09" * 16, "Name": None}]})
    expect(got["Topics"][0]["ErrorCode"], 100, "an unknown id")
    got = broker.call(DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [{"TopicId": topic.id, "Name": None}]})
    expect((got["Responses"][0]["ErrorCode"], got["Responses"][0]["Name"]), (0, topic.name), "deleted by id")

    def gone():
        got = broker.call(METADATA, 12, {"Topics": [{"Name": topic.name}], "AllowAutoTopicCreation": False})
        return got["Topics"][0]["ErrorCode"] == 3
    wait_for(gone, "the topic to be gone")
    again = broker.call(CREATE_TOPICS, 7, {"timeoutMs": 10000, "Topics": [
        {"Name": topic.name, "NumPartitions": 1, "ReplicationFactor": 1}]})["Topics"][0]
    expect((again["ErrorCode"], again["TopicId"] != topic.id), (0, True), "created again under another id")
    fresh_topic = Topic(broker, topic.name, again["TopicId"])
    fresh_topic.wait_for_leaders(1)
    expect(fresh_topic.list_offset(-1)["Offset"], 0, "a topic created again is empty")


@case
def auto_creation(broker):
    name = fresh("raw-auto")
    got = broker.call(METADATA, 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": False})
    expect(got["Topics"][0]["ErrorCode"], 3, "asked not to create")

    def there():
        got = broker.call(METADATA, 12, {"Topics": [{"Name": name}], "AllowAutoTopicCreation": True})
        return got["Topics"][0]["ErrorCode"] == 0 and len(got["Topics"][0]["Partitions"]) > 0
    wait_for(there, "the topic to be created")


@case
def metadata_shapes(broker):
    topic = broker.topic(3)
    broker.coordinator("raw-shapes")
    everything = broker.call(METADATA, 12, {"Topics": None})
    names = {t["Name"]: t for t in everything["Topics"]}
    expect(len(names[topic.name]["Partitions"]), 3, "partitions in the list of all topics")
    expect(names["__consumer_offsets"]["IsInternal"], True, "the offsets topic is internal")
    expect(broker.call(METADATA, 12, {"Topics": []})["Topics"], [], "no topics asked for")
    # In version 0 an empty list meant all.
    if len(broker.call(METADATA, 0, {"Topics": []})["Topics"]) < 2:
        raise AssertionError("an empty list in v0 means all topics")
    nodes = {b["NodeId"] for b in everything["Brokers"]}
    for part in names[topic.name]["Partitions"]:
        expect(part["LeaderId"] in nodes and part["LeaderId"] in part["IsrNodes"], True, "leader is a live node")
    cluster = broker.call(60, 2, {"EndpointType": 1})
    expect((cluster["ClusterId"], {b["BrokerId"] for b in cluster["Brokers"]}), (everything["ClusterId"], nodes),
           "DescribeCluster agrees with Metadata")
    paged, cursor = [], None
    for _ in range(5):
        got = broker.call(75, 0, {"Topics": [{"Name": topic.name}], "ResponsePartitionLimit": 2, "Cursor": cursor})
        paged += [p["PartitionIndex"] for t in got["Topics"] for p in t["Partitions"]]
        cursor = got["NextCursor"]
        if cursor is None:
            break
    expect(paged, [0, 1, 2], "partitions page by page")


# ---- groups ----
def join(c, version, group, member="", protocols=("range",), session=10000):
    return c.call(JOIN, version, {
        "GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": 10000, "MemberId": member,
        "GroupInstanceId": None, "ProtocolType": "consumer",
        "Protocols": [{"Name": p, "Metadata": b"meta-" + p.encode()} for p in protocols]})


def join_fully(c, version, group, **options):
    got = join(c, version, group, **options)
    if got["ErrorCode"] == 79:
        expect(version >= 4, True, "MEMBER_ID_REQUIRED only from v4")
        got = join(c, version, group, member=got["MemberId"], **options)
    expect(got["ErrorCode"], 0, f"JoinGroup v{version}")
    return got


@case
def group_at_every_version(broker):
    """Join, sync, heartbeat, commit, fetch, describe, leave: each at all its versions."""
    topic = broker.topic()
    top = broker.advertised()
    for version in range(0, top[JOIN][1] + 1):
        group = fresh("raw-group")
        v = {k: max(top[k][0], min(version, top[k][1])) for k in
             (JOIN, SYNC, HEARTBEAT, LEAVE, OFFSET_COMMIT, OFFSET_FETCH, 15, 16, 42)}
        with broker.connect(broker.coordinator(group)) as c:
            me = join_fully(c, v[JOIN], group)
            expect((me["Leader"], len(me["Members"]), me["ProtocolName"]), (me["MemberId"], 1, "range"), "join")
            expect(me["Members"][0]["Metadata"], b"meta-range", "metadata comes back to the leader")
            generation = me["GenerationId"]
            got = c.call(SYNC, v[SYNC], {
                "GroupId": group, "GenerationId": generation, "MemberId": me["MemberId"], "GroupInstanceId": None,
                "ProtocolType": "consumer", "ProtocolName": "range",
                "Assignments": [{"MemberId": me["MemberId"], "Assignment": b"mine"}]})
            expect((got["ErrorCode"], got["Assignment"]), (0, b"mine"), f"SyncGroup v{v[SYNC]}")
            beat = {"GroupId": group, "GenerationId": generation, "MemberId": me["MemberId"], "GroupInstanceId": None}
            expect(c.call(HEARTBEAT, v[HEARTBEAT], beat)["ErrorCode"], 0, "Heartbeat")
            expect(c.call(HEARTBEAT, v[HEARTBEAT], dict(beat, GenerationId=generation + 1))["ErrorCode"], 22,
                   "Heartbeat of another generation")
            expect(c.call(HEARTBEAT, v[HEARTBEAT], dict(beat, MemberId="stranger"))["ErrorCode"], 25,
                   "Heartbeat of a stranger")
            commit = {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": me["MemberId"],
                      "GroupInstanceId": None, "RetentionTimeMs": -1, "Topics": [
                          {"Name": topic.name, "TopicId": topic.id, "Partitions": [
                              {"PartitionIndex": 0, "CommittedOffset": 40 + version, "CommittedMetadata": "note"}]}]}
            got = c.call(OFFSET_COMMIT, v[OFFSET_COMMIT], commit)
            expect(errors_in(got), [0], f"OffsetCommit v{v[OFFSET_COMMIT]}")
            got = c.call(OFFSET_COMMIT, v[OFFSET_COMMIT], dict(commit, GenerationIdOrMemberEpoch=generation + 5))
            expect(errors_in(got), [22], "OffsetCommit of another generation")
            expect(committed(c, v[OFFSET_FETCH], group, topic), (40 + version, "note"),
                   f"OffsetFetch v{v[OFFSET_FETCH]}")
            got = c.call(15, v[15], {"Groups": [group]})["Groups"][0]
            expect((got["ErrorCode"], got["GroupState"], got["ProtocolType"], got["ProtocolData"],
                    [m["MemberAssignment"] for m in got["Members"]]),
                   (0, "Stable", "consumer", "range", [b"mine"]), f"DescribeGroups v{v[15]}")
            listed = c.call(16, v[16], {})
            expect(group in [g["GroupId"] for g in listed["Groups"]], True, "the group is listed")
            expect(c.call(42, v[42], {"GroupsNames": [group]})["Results"][0]["ErrorCode"], 68, "deleting a group in use")
            got = c.call(LEAVE, v[LEAVE], {"GroupId": group, "MemberId": me["MemberId"], "Members": [
                {"MemberId": me["MemberId"], "GroupInstanceId": None}]})
            expect([e for e in errors_in(got) if e], [], f"LeaveGroup v{v[LEAVE]}")
            got = c.call(15, v[15], {"Groups": [group]})["Groups"][0]
            expect(got["GroupState"], "Empty", "state after leaving")
            expect(c.call(42, v[42], {"GroupsNames": [group]})["Results"][0]["ErrorCode"], 0, "deleting the empty group")
            expect(committed(c, v[OFFSET_FETCH], group, topic)[0], -1, "offset after deleting")


def committed(c, version, group, topic):
    got = c.call(OFFSET_FETCH, version, {
        "GroupId": group, "Topics": [{"Name": topic.name, "PartitionIndexes": [0]}],
        "Groups": [{"GroupId": group, "MemberId": None, "MemberEpoch": -1, "Topics": [
            {"Name": topic.name, "TopicId": topic.id, "PartitionIndexes": [0]}]}]})
    topics = got["Topics"] if version < 8 else got["Groups"][0]["Topics"]
    part = topics[0]["Partitions"][0]
    expect(part["ErrorCode"], 0, f"OffsetFetch v{version}")
    return part["CommittedOffset"], part["Metadata"]


@case
def group_errors(broker):
    topic = broker.topic()
    group = fresh("raw-group")
    with broker.connect(broker.coordinator(group)) as c:
        expect(join(c, 5, "")["ErrorCode"], 24, "an empty group id")
        expect(join(c, 5, group, member="stranger")["ErrorCode"], 25, "an unknown member id")
        expect(join(c, 5, group, session=1)["ErrorCode"], 26, "a session timeout below the limit")
        expect(join(c, 5, group, protocols=())["ErrorCode"], 23, "no protocols")
        me = join_fully(c, 5, group)
        # A second member without a protocol in common.
        with broker.connect(broker.coordinator(group)) as other:
            expect(join(other, 3, group, protocols=("sticky",))["ErrorCode"], 23, "no common protocol")
        got = c.call(OFFSET_COMMIT, 8, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "",
                                        "GroupInstanceId": None, "Topics": [
                                            {"Name": topic.name, "Partitions": [
                                                {"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}]})
        expect(errors_in(got), [25], "a simple commit into a group with members")
        got = c.call(SYNC, 3, {"GroupId": group, "GenerationId": me["GenerationId"] + 1, "MemberId": me["MemberId"],
                               "GroupInstanceId": None})
        expect(got["ErrorCode"], 22, "SyncGroup of another generation")
        got = c.call(42, 2, {"GroupsNames": [fresh("raw-no")]})
        expect(got["Results"][0]["ErrorCode"], 69, "deleting what is not there")


@case
def group_session_expires(broker):
    """A member that falls silent is dropped; the other gets everything."""
    group = fresh("raw-group")
    address = broker.coordinator(group)
    with broker.connect(address) as first, broker.connect(address) as second:
        one = join_fully(first, 5, group, session=6000)
        sync = {"GroupId": group, "GenerationId": one["GenerationId"], "MemberId": one["MemberId"],
                "GroupInstanceId": None, "Assignments": [{"MemberId": one["MemberId"], "Assignment": b"1"}]}
        expect(first.call(SYNC, 3, sync)["ErrorCode"], 0, "sync")
        second.socket.settimeout(40)
        start = time.monotonic()
        two = join_fully(second, 5, group, session=6000)  # waits until the first is dropped
        took = time.monotonic() - start
        expect(two["Leader"], two["MemberId"], "the new leader")
        expect(len(two["Members"]), 1, "members left")
        if not 2 < took < 20:
            raise AssertionError(f"a silent member with a session of 6 s was dropped after {took:.1f} s")


@case
def static_member_keeps_its_place(broker):
    group = fresh("raw-static")
    with broker.connect(broker.coordinator(group)) as c:
        request = {"GroupId": group, "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "MemberId": "",
                   "GroupInstanceId": "seat-1", "ProtocolType": "consumer",
                   "Protocols": [{"Name": "range", "Metadata": b"m"}]}
        one = c.call(JOIN, 7, request)
        expect(one["ErrorCode"], 0, "a static member joins at once")
        sync = {"GroupId": group, "GenerationId": one["GenerationId"], "MemberId": one["MemberId"],
                "GroupInstanceId": "seat-1", "ProtocolType": "consumer", "ProtocolName": "range",
                "Assignments": [{"MemberId": one["MemberId"], "Assignment": b"kept"}]}
        expect(c.call(SYNC, 5, sync)["ErrorCode"], 0, "sync")
        again = c.call(JOIN, 7, request)
        expect((again["ErrorCode"], again["GenerationId"]), (0, one["GenerationId"]), "coming back: no rebalance")
        expect(again["MemberId"] != one["MemberId"], True, "a new member id")
        got = c.call(SYNC, 5, dict(sync, MemberId=again["MemberId"], Assignments=[]))
        expect((got["ErrorCode"], got["Assignment"]), (0, b"kept"), "its assignment")
        got = c.call(HEARTBEAT, 3, {"GroupId": group, "GenerationId": one["GenerationId"],
                                    "MemberId": one["MemberId"], "GroupInstanceId": "seat-1"})
        expect(got["ErrorCode"], 82, "the one before is fenced")


@case
def offset_delete(broker):
    topic = broker.topic()
    group = fresh("raw-group")
    with broker.connect(broker.coordinator(group)) as c:
        commit = {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "", "GroupInstanceId": None,
                  "Topics": [{"Name": topic.name, "Partitions": [
                      {"PartitionIndex": 0, "CommittedOffset": 5, "CommittedMetadata": None}]}]}
        expect(errors_in(c.call(OFFSET_COMMIT, 8, commit)), [0], "a simple commit")
        expect(committed(c, 7, group, topic)[0], 5, "offset")
        got = c.call(47, 0, {"GroupId": group, "Topics": [{"Name": topic.name, "Partitions": [{"PartitionIndex": 0}]}]})
        expect(errors_in(got), [0, 0], "OffsetDelete")
        expect(committed(c, 7, group, topic)[0], -1, "offset afterwards")
        got = c.call(47, 0, {"GroupId": fresh("raw-no"), "Topics": []})
        expect(got["ErrorCode"], 69, "an unknown group")


@case
def configs(broker):
    topic = broker.topic(configs=[("retention.ms", "12345678")])

    def described(names=None):
        got = broker.call(32, 4, {"IncludeSynonyms": True, "Resources": [
            {"ResourceType": 2, "ResourceName": topic.name, "ConfigurationKeys": names}]})["Results"][0]
        expect(got["ErrorCode"], 0, "DescribeConfigs")
        return {c["Name"]: c for c in got["Configs"]}

    def alter(name, operation, value, validate=False):
        got = broker.call(44, 1, {"ValidateOnly": validate, "Resources": [
            {"ResourceType": 2, "ResourceName": topic.name, "Configs": [
                {"Name": name, "ConfigOperation": operation, "Value": value}]}]})
        return got["Responses"][0]["ErrorCode"]

    found = described()
    for name in ("cleanup.policy", "compression.type", "retention.bytes", "segment.bytes", "max.message.bytes",
                 "min.insync.replicas", "message.timestamp.type", "delete.retention.ms"):
        expect(name in found, True, f"{name} is described")
    expect((found["retention.ms"]["Value"], found["retention.ms"]["ConfigSource"]), ("12345678", 1), "set at creation")
    expect(found["cleanup.policy"]["ConfigSource"], 5, "a default")
    expect(sorted(described(["retention.ms"])), ["retention.ms"], "only what was asked for")
    expect(alter("retention.ms", 0, "99999", validate=True), 0, "a trial")
    wait_for(lambda: described(["retention.ms"])["retention.ms"]["Value"] == "12345678", "the trial to change nothing")
    expect(alter("retention.ms", 0, "99999"), 0, "set")
    wait_for(lambda: described(["retention.ms"])["retention.ms"]["Value"] == "99999", "the new value")
    expect(alter("retention.ms", 1, None), 0, "delete")
    wait_for(lambda: described(["retention.ms"])["retention.ms"]["ConfigSource"] != 1, "the default")
    expect(alter("cleanup.policy", 2, "compact"), 0, "append to a list")
    wait_for(lambda: described(["cleanup.policy"])["cleanup.policy"]["Value"] == "delete,compact", "the longer list")
    expect(alter("cleanup.policy", 3, "delete"), 0, "subtract from a list")
    wait_for(lambda: described(["cleanup.policy"])["cleanup.policy"]["Value"] == "compact", "the shorter list")
    expect(alter("retention.ms", 2, "1"), 40, "append to what is no list")
    expect(alter("no.such.config", 0, "1"), 40, "an unknown config")
    expect(alter("retention.ms", 0, "soon"), 40, "a bad value")
    got = broker.call(32, 4, {"Resources": [{"ResourceType": 2, "ResourceName": fresh("raw-no"),
                                             "ConfigurationKeys": None}]})["Results"][0]
    expect(got["ErrorCode"], 3, "configs of an unknown topic")


@case
def message_limits(broker):
    """Per-topic limits and timestamps are enforced."""
    small = broker.topic(configs=[("max.message.bytes", "1000")])
    expect(small.produce_raw(kmsg.batch([b"x" * 2000]))["ErrorCode"], 10, "over the topic's limit")
    expect(small.produce_raw(kmsg.batch([b"x" * 500]))["ErrorCode"], 0, "under the topic's limit")
    narrow = broker.topic(configs=[("message.timestamp.after.max.ms", "3600000")])
    ahead = int(time.time() * 1000) + 10 * 3600000
    expect(narrow.produce_raw(kmsg.batch([b"x"], timestamp=ahead))["ErrorCode"], 32, "a timestamp too far ahead")
    stamped = broker.topic(configs=[("message.timestamp.type", "LogAppendTime")])
    before = int(time.time() * 1000)
    got = stamped.produce_raw(kmsg.batch([b"x"], timestamp=5))
    expect(got["ErrorCode"] == 0 and abs(got["LogAppendTimeMs"] - before) < 60000, True, "append time in the answer")
    found = stamped.list_offset(-3)
    expect(abs(found["Timestamp"] - before) < 60000, True, "append time in the log")
    keyed = broker.topic(configs=[("cleanup.policy", "compact")])
    expect(keyed.produce_raw(kmsg.batch([b"no key"]))["ErrorCode"], 87, "no key in a compacted topic")
    expect(keyed.produce_raw(kmsg.batch([(b"key", b"v")]))["ErrorCode"], 0, "a key in a compacted topic")


# ---- the finer points of administration ----
def described(broker, kind, name, keys, version=4):
    got = broker.call(32, version, {"IncludeSynonyms": True, "Resources": [
        {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}]})["Results"][0]
    expect(got["ErrorCode"], 0, f"DescribeConfigs of {name}")
    return {c["Name"]: c for c in got["Configs"]}


def altered(broker, *resources, validate=False):
    """[error] for resources of (type, name, [(key, operation, value)])."""
    got = broker.call(44, 1, {"ValidateOnly": validate, "Resources": [
        {"ResourceType": kind, "ResourceName": name,
         "Configs": [{"Name": k, "ConfigOperation": o, "Value": v} for k, o, v in changes]}
        for kind, name, changes in resources]})["Responses"]
    return [r["ErrorCode"] for r in got]


def node_id(broker):
    return broker.call(METADATA, 12, {"Topics": []})["Brokers"][0]["NodeId"]


@case
def describe_configs_details(broker):
    topic = broker.topic(configs=[("max.message.bytes", "12345"), ("follower.replication.throttled.replicas", "*")])
    found = described(broker, 2, topic.name, None)
    expect(len(described(broker, 2, topic.name, [])), len(found), "no keys asked for: all")
    expect([(s["Name"], s["Source"]) for s in found["segment.bytes"]["Synonyms"]][-1], ("log.segment.bytes", 5),
           "the weakest synonym")
    synonyms = [(s["Name"], s["Source"]) for s in found["max.message.bytes"]["Synonyms"]]
    expect(synonyms, [("max.message.bytes", 1), ("message.max.bytes", 5)], "synonyms of an override")
    expect([(s["Name"], s["Source"]) for s in found["follower.replication.throttled.replicas"]["Synonyms"]],
           [("follower.replication.throttled.replicas", 1)], "no broker's key")
    expect(found["remote.storage.enable"]["Synonyms"], [], "no broker's key and no override")
    for name, kind in (("retention.ms", 5), ("segment.bytes", 3), ("cleanup.policy", 7), ("preallocate", 1),
                       ("min.cleanable.dirty.ratio", 6), ("compression.type", 2)):
        expect(found[name]["ConfigType"], kind, f"type of {name}")
    of_broker = described(broker, 4, str(node_id(broker)), ["log.retention.ms", "message.max.bytes"])
    expect((of_broker["log.retention.ms"]["Value"], of_broker["log.retention.ms"]["Synonyms"]), (None, []), "not set")
    expect(of_broker["message.max.bytes"]["ReadOnly"], False, "a dynamic key")


@case
def alter_configs_details(broker):
    topic = broker.topic()
    mine = (2, topic.name)
    expect(altered(broker, (*mine, [("retention.ms", 0, None)])), [42], "a null value")
    expect(altered(broker, (*mine, [("no.such.config", 1, None)])), [0], "deleting what nobody knows")
    expect(altered(broker, (*mine, [("retention.ms", 0, "5"), ("retention.ms", 0, "6")])), [42], "a key twice")
    expect(altered(broker, (*mine, [("retention.ms", 0, "5")]), (*mine, [("retention.ms", 0, "6")])), [42, 42],
           "a resource twice")
    expect(altered(broker, (2, "bad name", [("retention.ms", 0, "5")])), [17], "a bad topic name")
    expect(altered(broker, (*mine, [("retention.ms", 0, "soon")]), validate=True), [40], "a trial of a bad value")
    expect(altered(broker, (*mine, [("cleanup.policy", 0, " compact , delete,compact ")])), [0], "a list with blanks")
    wait_for(lambda: described(broker, 2, topic.name, ["cleanup.policy"])["cleanup.policy"]["Value"] == "compact,delete",
             "the list in order, without the duplicate")
    got = broker.call(33, 2, {"ValidateOnly": False, "Resources": [
        {"ResourceType": 2, "ResourceName": topic.name, "Configs": [{"Name": "retention.ms", "Value": None}]}]})
    expect(got["Responses"][0]["ErrorCode"], 42, "AlterConfigs with a null value")
    broker_id = str(node_id(broker))
    of_broker = (4, broker_id)
    expect(altered(broker, (*of_broker, [("num.partitions", 0, "3")])), [42], "a key that is read at start")
    expect(altered(broker, (*of_broker, [("message.max.bytes", 0, "many")])), [42], "a bad value")
    expect(altered(broker, (*of_broker, [("message.max.bytes", 0, None)])), [42], "no value")
    expect(altered(broker, (*of_broker, [("message.max.bytes", 2, "1")])), [40], "append to what is no list")
    twice = [("message.max.bytes", 0, "1000012"), ("message.max.bytes", 0, "1000013")]
    expect(altered(broker, (*of_broker, twice)), [42], "a key twice")
    expect(altered(broker, (4, "4711", [("message.max.bytes", 0, "1000012")])), [42], "another broker")
    try:
        expect(altered(broker, (*of_broker, [("log.cleanup.policy", 2, "compact")])), [0], "append")

        def policy():
            found = described(broker, 4, broker_id, ["log.cleanup.policy"])["log.cleanup.policy"]
            return sorted(found["Value"].split(",")), found["ConfigSource"]
        wait_for(lambda: policy() == (["compact", "delete"], 2), "the longer list")
        expect(altered(broker, (*of_broker, [("log.cleanup.policy", 3, "compact")])), [0], "subtract")
        wait_for(lambda: policy() == (["delete"], 2), "the shorter list")
    finally:
        expect(altered(broker, (*of_broker, [("log.cleanup.policy", 1, None)])), [0], "delete")


@case
def configs_of_all_brokers(broker):
    """The resource "" is what every broker has as long as nothing is set on itself."""
    me, topic = str(node_id(broker)), broker.topic()
    key, every = "message.max.bytes", (4, "")

    def value(kind, name, config=key):
        found = described(broker, kind, name, [config]).get(config)
        return found and (found["Value"], found["ConfigSource"], [(s["Value"], s["Source"]) for s in found["Synonyms"]])

    expect(value(*every), None, "nothing is set")
    default = value(4, me)
    try:
        expect(altered(broker, (*every, [(key, 0, "1000111"), ("log.retention.ms", 0, "5555555")]), validate=True), [0],
               "a trial")
        expect(value(*every), None, "a trial changes nothing")
        expect(altered(broker, (*every, [(key, 0, "1000111"), ("log.retention.ms", 0, "5555555")])), [0], "set")
        wait_for(lambda: value(4, me)[0] == "1000111", "the broker follows")
        expect(value(*every), ("1000111", 3, [("1000111", 3)]), "as the cluster's")
        expect(value(4, me), ("1000111", 3, [("1000111", 3)] + default[2]), "as the broker's")
        wait_for(lambda: value(2, topic.name, "max.message.bytes")[:2] == ("1000111", 3), "topics follow")
        expect(value(2, topic.name, "retention.ms")[:2], ("5555555", 3), "another key")
        expect(altered(broker, (4, me, [(key, 0, "1000222")])), [0], "set on the broker")
        wait_for(lambda: value(4, me)[0] == "1000222", "the broker's own")
        expect(value(4, me)[1:], (2, [("1000222", 2), ("1000111", 3)] + default[2]), "both are told")
        expect(value(*every), ("1000111", 3, [("1000111", 3)]), "the cluster's stays")
        wait_for(lambda: value(2, topic.name, "max.message.bytes")[:2] == ("1000222", 2), "topics follow the broker")
        expect(altered(broker, (4, me, [(key, 1, None)])), [0], "deleted on the broker")
        wait_for(lambda: value(4, me)[:2] == ("1000111", 3), "back to the cluster's")
        for what, changes, code in (("read at start", [("num.partitions", 0, "3")], 42), ("bad", [(key, 0, "many")], 42),
                                    ("null", [(key, 0, None)], 42), ("no list", [(key, 2, "1")], 40),
                                    ("twice", [(key, 0, "1"), (key, 0, "2")], 42)):
            expect(altered(broker, (*every, changes)), [code], what)
        expect(altered(broker, (*every, [("log.cleanup.policy", 2, "compact")])), [0], "append to the default")
        wait_for(lambda: (value(*every, "log.cleanup.policy") or "none")[0].count(",") == 1, "the longer list")
        got = broker.call(33, 2, {"ValidateOnly": False, "Resources": [
            {"ResourceType": 4, "ResourceName": me, "Configs": [{"Name": key, "Value": "1000333"}]}]})["Responses"]
        expect(got[0]["ErrorCode"], 0, "AlterConfigs")
        wait_for(lambda: value(4, me)[:2] == ("1000333", 2), "AlterConfigs sets")
        got = broker.call(33, 2, {"ValidateOnly": False, "Resources": [
            {"ResourceType": 4, "ResourceName": me, "Configs": []}]})["Responses"]
        expect(got[0]["ErrorCode"], 0, "AlterConfigs of nothing")
        wait_for(lambda: value(4, me)[:2] == ("1000111", 3), "AlterConfigs deletes what it does not name")
    finally:
        altered(broker, (4, me, [(key, 1, None)]))
        gone = [(name, 1, None) for name in (key, "log.retention.ms", "log.cleanup.policy")]
        expect(altered(broker, (*every, gone)), [0], "delete")
    wait_for(lambda: value(4, me) == default, "as before")
    expect(value(*every), None, "nothing is set any more")


def replaced(broker, kind, name, **configs):
    """AlterConfigs, the older form."""
    got = broker.call(33, 2, {"ValidateOnly": False, "Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
        {"Name": k.replace("_", "."), "Value": v} for k, v in configs.items()]}]})["Responses"]
    return got[0]["ErrorCode"]


def config_of(broker, kind, name, key):
    found = described(broker, kind, name, [key])[key]
    return found["Value"], found["ConfigSource"], [(s["Name"], s["Value"], s["Source"]) for s in found["Synonyms"]]


@case
def unknown_broker_configs(broker):
    """What nobody knows is kept, and described without its value: it might be a secret."""
    me, name, other, every = str(node_id(broker)), fresh("raw.unknown"), fresh("raw.unknown"), (4, "")
    mine = (4, me)

    def entry(of, key=name):
        found = described(broker, 4, of, [key]).get(key)
        return found and (found["Value"], found["ReadOnly"], found["IsSensitive"], found["ConfigType"], found["ConfigSource"],
                          [(s["Name"], s["Value"], s["Source"]) for s in found["Synonyms"]])

    def shown(*sources, key=name):
        return None, True, True, 0, sources[0], [(key, None, s) for s in sources]

    expect(entry(me), None, "nothing is set")
    for resource in (mine, every):
        for changes, code in (([(name, 2, "1")], 40), ([(name, 3, "1")], 40), ([(name, 1, None)], 0), ([(name, 0, None)], 42),
                              ([(name, 0, "1"), (name, 0, "2")], 42), ([(name, 0, "1"), ("message.max.bytes", 0, "many")], 42),
                              ([(name, 0, "1"), ("num.partitions", 0, "3")], 42)):
            expect(altered(broker, (*resource, changes)), [code], f"{resource}: {changes}")
        expect(altered(broker, (*resource, [(name, 0, "1")]), validate=True), [0], "a trial")
    expect(altered(broker, (4, "4711", [(name, 0, "1")])), [42], "another broker")
    time.sleep(0.5)
    expect((entry(me), entry("")), (None, None), "nothing of that set anything")
    try:
        expect(altered(broker, (*mine, [(name, 0, "secret"), (other, 0, "")])), [0], "set")
        wait_for(lambda: entry(me) == shown(2) and entry(me, other) == shown(2, key=other), "both are kept")
        expect(name in described(broker, 4, me, None), True, "among all")
        expect(entry(""), None, "not those of all brokers")
        expect(altered(broker, (*mine, [(name, 2, "1")])), [40], "it is no list either when it is there")
        expect(altered(broker, (*every, [(name, 0, "2"), (other, 0, "x" * 32767)])), [0], "set for all brokers")
        wait_for(lambda: entry("", other) == shown(3, key=other), "they are kept")
        expect((entry(""), entry(me)), (shown(3), shown(2, 3)), "both are told")
        expect(altered(broker, (*mine, [(name, 1, None), ("message.max.bytes", 0, "1000444")])), [0], "deleted beside a known one")
        wait_for(lambda: entry(me) == shown(3), "that of all brokers stays")
        wait_for(lambda: described(broker, 4, me, ["message.max.bytes"])["message.max.bytes"]["Value"] == "1000444", "and the known one")
        expect(replaced(broker, 4, me, raw_third="1"), 0, "AlterConfigs")
        wait_for(lambda: entry(me, "raw.third") == shown(2, key="raw.third"), "AlterConfigs sets")
        wait_for(lambda: entry(me, other) == shown(3, key=other), "AlterConfigs deletes what it does not name")
        expect(described(broker, 4, me, ["message.max.bytes"])["message.max.bytes"]["ConfigSource"] != 2, True, "known ones, too")
        expect(replaced(broker, 4, me), 0, "AlterConfigs of nothing")
        wait_for(lambda: entry(me, "raw.third") is None, "AlterConfigs deletes")
        for odd in ("", "a key / of\tits own", "clé"):
            expect(altered(broker, (*mine, [(odd, 0, "v")])), [0], f"named {odd!r}")
            wait_for(lambda: entry(me, odd) == shown(2, key=odd), f"{odd!r} is kept")
            expect(altered(broker, (*mine, [(odd, 1, None)])), [0], f"delete {odd!r}")
            wait_for(lambda: entry(me, odd) is None, f"{odd!r} is deleted")
        expect(altered(broker, (*mine, [("n" * 32767, 1, None)])), [0], "deleting the longest name")
    finally:
        altered(broker, (*mine, [(key, 1, None) for key in (name, other, "raw.third", "message.max.bytes")]))
        expect(altered(broker, (*every, [(name, 1, None), (other, 1, None)])), [0], "delete")
    wait_for(lambda: entry("") is None and entry("", other) is None, "they are deleted")
    wait_for(lambda: entry(me) is None, "for the broker, too")


@case
def broker_configs_of_kafka(broker):
    """core/broker/kafka_configs.def has each config of Kafka's brokers that Leat has not, and says which of them can't be changed."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    listed = re.findall(r'KAFKA_CONFIG\("([^"]+)", (AT_START|DYNAMIC)\)', open(f"{root}/core/broker/kafka_configs.def").read())
    own = set(re.findall(r'"([a-z0-9._]+)"', open(f"{root}/include/config.def").read()))
    me = str(node_id(broker))
    known = [name for name, c in described(broker, 4, me, None).items() if c["ConfigType"] != 0]
    expect([name for name in known if name not in own.union(name for name, _ in listed)], [], "configs that are in no table")
    for name in [name for name, change in listed if change == "AT_START"] + ["num.partitions"]:
        both = altered(broker, (4, me, [(name, 0, "1")]), (4, "", [(name, 0, "1")]), validate=True)
        expect(both, [42, 42], f"set {name}")
        expect(altered(broker, (4, me, [(name, 1, None)]), validate=True), [0], f"delete {name}")
    for name in ("listener.name.x.y", "sasl.jaas.config", "ssl.keystore.location"):
        expect(altered(broker, (4, "", [(name, 0, "1")])), [42], f"{name} for all brokers")


# Of configs that tune how Kafka does what other brokers may do in another way: (a good value, a bad one, its type).
TUNING = {"leader.replication.throttled.rate": ("1000000", "-1", 5), "follower.replication.throttled.rate": ("1000000", "fast", 5),
          "replica.alter.log.dirs.io.max.bytes.per.second": ("1000000", "-1", 5), "background.threads": ("12", "0", 3),
          "num.io.threads": ("9", "0", 3), "num.network.threads": ("4", "0", 3), "num.recovery.threads.per.data.dir": ("3", "0", 3),
          "num.replica.fetchers": ("2", "0", 3), "log.cleaner.threads": ("2", "-1", 3), "log.cleaner.io.buffer.size": ("600000", "-1", 3),
          "log.cleaner.io.buffer.load.factor": ("0.8", "much", 6), "group.coordinator.cached.buffer.max.bytes": ("2000000", "1", 3),
          "remote.log.manager.copier.thread.pool.size": ("12", "0", 3), "remote.log.reader.threads": ("12", "0", 3),
          "remote.log.manager.expiration.thread.pool.size": ("12", "0", 3),
          "remote.log.manager.follower.thread.pool.size": ("3", "0", 3),
          "remote.log.index.file.cache.total.size.bytes": ("2000000000", "0", 5),
          "follower.fetch.last.tiered.offset.enable": ("true", "perhaps", 1)}


@case
def broker_configs_of_tools(broker):
    """Throttles, which kafka-reassign-partitions sets and removes, threads and buffers may be set and are told."""
    me = str(node_id(broker))
    before = described(broker, 4, me, list(TUNING))

    def entry(of, name):
        found = described(broker, 4, of, [name]).get(name)
        return found and (found["Value"], found["ConfigSource"], found["ReadOnly"], found["IsSensitive"], found["ConfigType"],
                          [(s["Name"], s["Value"], s["Source"]) for s in found["Synonyms"]][:1])

    def shown(name, source):
        good, _, kind = TUNING[name]
        return good, source, False, False, kind, [(name, good, source)]

    gone = [(name, 1, None) for name in TUNING]
    try:
        for of, source in ((me, 2), ("", 3)):
            for name, (good, bad, _) in TUNING.items():
                expect(altered(broker, (4, of, [(name, 0, bad)])), [42], f"{name}={bad} of {of!r}")
                expect(altered(broker, (4, of, [(name, 0, good)]), validate=True), [0], f"{name}={good} of {of!r}: a trial")
            expect(altered(broker, (4, of, [(name, 0, good) for name, (good, _, _) in TUNING.items()])), [0], f"set of {of!r}")
            for name in TUNING:
                wait_for(lambda: entry(of, name) == shown(name, source), f"{name} of {of!r}")
            expect(altered(broker, (4, of, gone)), [0], f"delete of {of!r}")
            wait_for(lambda: described(broker, 4, me, list(TUNING)) == before, f"as before {of!r}")
    finally:
        altered(broker, (4, me, gone), (4, "", gone))


@case
def configs_of_groups(broker):
    group, other, key = fresh("raw-group"), fresh("raw-group"), "consumer.session.timeout.ms"
    rest = [("group." + key, "45000", 5)]
    found = described(broker, 32, group, None)
    expect(len(found), 21, "configs of a group")
    expect({c["ConfigSource"] for c in found.values()}, {5}, "all are defaults")
    for name, value, kind in ((key, "45000", 3), ("share.auto.offset.reset", "latest", 2), ("streams.num.standby.replicas", "0", 3),
                              ("share.renew.acknowledge.enable", "true", 1), ("streams.rack.aware.assignment.tags", "", 7)):
        expect((found[name]["Value"], found[name]["ConfigType"]), (value, kind), name)
    expect(config_of(broker, 32, group, key), ("45000", 5, rest), "a default")
    expect(config_of(broker, 32, group, "share.auto.offset.reset"), ("latest", 5, [("share.auto.offset.reset", "latest", 5)]),
           "a default without a broker's key")
    for changes, code in (([(key, 0, "10")], 40), ([(key, 0, "60001")], 40), ([(key, 0, "many")], 40), ([(key, 0, None)], 42),
                          ([(key, 2, "46000")], 40), ([("no.such", 0, "1")], 40), ([("no.such", 1, None)], 0),
                          ([(key, 0, "46000"), (key, 0, "46001")], 42), ([("share.isolation.level", 0, "READ_COMMITTED")], 40),
                          ([("share.auto.offset.reset", 0, "middle")], 40), ([("share.auto.offset.reset", 0, "by_duration:x")], 40),
                          ([("streams.assignor.name", 0, "mine")], 40), ([("share.renew.acknowledge.enable", 0, "yes")], 40),
                          ([("streams.num.standby.replicas", 0, "3")], 40)):
        expect(altered(broker, (32, group, changes)), [code], f"{changes}")
    expect(altered(broker, (32, "", [(key, 0, "46000")])), [42], "a group without a name")
    expect(altered(broker, (32, group, [(key, 0, "46000")]), validate=True), [0], "a trial")
    expect(config_of(broker, 32, group, key)[1], 5, "changes nothing")
    good = [(key, 0, " 46000 "), ("share.auto.offset.reset", 0, "by_duration:PT1H30M"),
            ("errors.deadletterqueue.topic.name", 0, "dlq")]
    expect(altered(broker, (32, group, good)), [0], "set")
    wait_for(lambda: config_of(broker, 32, group, key) == ("46000", 8, [(key, "46000", 8)] + rest), "it is set")
    expect(config_of(broker, 32, group, "share.auto.offset.reset")[:2], ("by_duration:PT1H30M", 8), "another")
    expect(config_of(broker, 32, other, key), ("45000", 5, rest), "another group")
    expect(replaced(broker, 32, group, consumer_heartbeat_interval_ms="6000"), 0, "AlterConfigs")
    wait_for(lambda: config_of(broker, 32, group, "consumer.heartbeat.interval.ms")[:2] == ("6000", 8), "AlterConfigs sets")
    expect(config_of(broker, 32, group, key), ("45000", 5, rest), "AlterConfigs deletes what it does not name")
    expect(altered(broker, (32, group, [("consumer.heartbeat.interval.ms", 1, None)])), [0], "delete")
    wait_for(lambda: config_of(broker, 32, group, "consumer.heartbeat.interval.ms")[1] == 5, "it is deleted")


@case
def configs_of_client_metrics(broker):
    name = fresh("raw-metrics")
    expect({k: (c["Value"], c["ConfigSource"], c["ConfigType"], c["Synonyms"]) for k, c in described(broker, 16, name, None).items()},
           {"interval.ms": ("300000", 5, 3, []), "match": ("", 5, 7, []), "metrics": ("", 5, 7, [])}, "nothing is set")
    for changes, code in (([("interval.ms", 0, "99")], 42), ([("interval.ms", 0, "3600001")], 42), ([("interval.ms", 0, "x")], 40),
                          ([("match", 0, "color=blue")], 40), ([("match", 0, "client_id")], 40), ([("match", 0, "client_id=a=b")], 40),
                          ([("no.such", 0, "1")], 42), ([("metrics", 2, "a")], 40), ([("metrics", 0, None)], 42)):
        expect(altered(broker, (16, name, changes)), [code], f"{changes}")
    expect(altered(broker, (16, "", [("interval.ms", 0, "1000")])), [42], "no name")
    good = [("interval.ms", 0, "1000"), ("metrics", 0, "org.apache,x"), ("match", 0, "client_id=a.*,client_software_name=b")]
    expect(altered(broker, (16, name, good)), [0], "set")
    wait_for(lambda: config_of(broker, 16, name, "interval.ms") == ("1000", 7, [("interval.ms", "1000", 7)]), "it is set")
    expect(config_of(broker, 16, name, "match")[0], "client_id=a.*,client_software_name=b", "match")
    expect(altered(broker, (16, name, [(k, 1, None) for k, _, _ in good])), [0], "delete")
    wait_for(lambda: config_of(broker, 16, name, "interval.ms") == ("300000", 5, []), "it is deleted")


@case
def broker_logger(broker):
    me = str(node_id(broker))

    def level():
        root = described(broker, 8, me, ["root"])["root"]
        return root["Value"], root["ConfigSource"], root["ConfigType"], root["ReadOnly"], root["Synonyms"]

    before = level()[0]
    try:
        for wanted in ("DEBUG", "ERROR", "INFO"):
            expect(altered(broker, (8, me, [("root", 0, wanted)])), [0], f"set to {wanted}")
            wait_for(lambda: level() == (wanted, 6, 0, False, []), f"the level is {wanted}")
        expect(altered(broker, (8, me, [("root", 0, "DEBUG")]), validate=True), [0], "a trial")
        expect(level()[0], "INFO", "changes nothing")
        for changes, code in (([("root", 0, "LOUD")], 40), ([("root", 0, "info")], 40), ([("no.such", 0, "INFO")], 40),
                              ([("root", 2, "INFO")], 42), ([("root", 1, None)], 42), ([("root", 0, None)], 42),
                              ([("root", 0, "INFO"), ("root", 0, "WARN")], 42)):
            expect(altered(broker, (8, me, changes)), [code], f"{changes}")
        for name in ("", "4711", "x"):
            expect(altered(broker, (8, name, [("root", 0, "INFO")])), [42], f"broker {name!r}")
            got = broker.call(32, 4, {"Resources": [{"ResourceType": 8, "ResourceName": name, "ConfigurationKeys": None}]})
            expect(got["Results"][0]["ErrorCode"], 42, f"DescribeConfigs of broker {name!r}")
        expect(replaced(broker, 8, me, root="INFO"), 42, "AlterConfigs")
    finally:
        expect(altered(broker, (8, me, [("root", 0, before)])), [0], "as before")
    for kind in (0, 1, 77):
        expect(altered(broker, (kind, "x", [])), [42], f"type {kind}")
        got = broker.call(32, 4, {"Resources": [{"ResourceType": kind, "ResourceName": "x", "ConfigurationKeys": None}]})
        expect(got["Results"][0]["ErrorCode"], 42, f"DescribeConfigs of type {kind}")


@case
def list_config_resources(broker):
    group, metrics, topic, me = fresh("raw-group"), fresh("raw-metrics"), broker.topic().name, str(node_id(broker))
    sets = [(32, group, "consumer.session.timeout.ms", "46000"), (32, group, "consumer.heartbeat.interval.ms", "6000"),
            (16, metrics, "interval.ms", "1000")]

    def listed(*types, version=1):
        got = broker.call(74, version, {"ResourceTypes": list(types)})
        expect(got["ErrorCode"], 0, f"ListConfigResources of {types}")
        return [(r.get("ResourceType", 16), r["ResourceName"]) for r in got["ConfigResources"]]

    for kind, name, key, value in sets:
        expect(altered(broker, (kind, name, [(key, 0, value)])), [0], f"set {key}")
    wait_for(lambda: (16, metrics) in listed() and (32, group) in listed(), "they are listed")
    found = listed()
    for one in ((2, topic), (4, me), (8, me), (16, metrics), (32, group)):
        expect(found.count(one), 1, f"{one} among all")
        same = listed(one[0], one[0])
        expect((same.count(one), {kind for kind, _ in same}), (1, {one[0]}), f"type {one[0]} alone")
    expect({kind for kind, _ in listed(16, 32)}, {16, 32}, "two types")
    expect((16, metrics) in listed(version=0), True, "the first version has client metrics")
    for types in ([0], [1], [77], [2, 77], [-128]):
        expect(broker.call(74, 1, {"ResourceTypes": types})["ErrorCode"], 35, f"types {types}")
    for kind, name, key, _ in sets:
        expect(altered(broker, (kind, name, [(key, 1, None)])), [0], f"delete {key}")
    wait_for(lambda: not {(16, metrics), (32, group)}.intersection(listed()), "nothing of them is set")


@case
def create_topics_details(broker):
    me, counter = node_id(broker), fresh("raw-detail")

    def create(*topics, validate=False, version=7):
        got = broker.call(CREATE_TOPICS, version, {"timeoutMs": 15000, "validateOnly": validate, "Topics": [
            dict({"Name": f"{counter}-{len(made)}-{i}", "NumPartitions": -1, "ReplicationFactor": -1}, **t)
            for i, t in enumerate(topics)]})["Topics"]
        made.append(1)
        return got

    def on(*replicas):
        return {"Assignments": [{"PartitionIndex": p, "BrokerIds": ids} for p, ids in replicas]}

    made = []
    for version in (2, 4, 7):
        expect(create({}, version=version)[0]["ErrorCode"], 0, f"the broker's defaults, v{version}")
    got = create(on((0, [me]), (1, [me])), validate=True)[0]
    expect((got["ErrorCode"], got["NumPartitions"], got["ReplicationFactor"]), (0, 2, 1), "a trial with replicas")
    expect(create(on((0, [me]), (1, [me])))[0]["ErrorCode"], 0, "replicas by hand")
    for what, replicas in (("a gap", on((0, [me]), (2, [me]))), ("not from 0", on((1, [me]))),
                           ("a partition twice", on((0, [me]), (0, [me]))), ("an unknown broker", on((0, [4711]))),
                           ("no replicas", on((0, []))), ("a broker twice", on((0, [me, me])))):
        expect(create(replicas)[0]["ErrorCode"], 39, what)
        expect(create(replicas, validate=True)[0]["ErrorCode"], 39, f"{what}, as a trial")
    expect(create(dict(on((0, [me])), NumPartitions=1))[0]["ErrorCode"], 42, "replicas and a number of partitions")
    expect(create(dict(on((0, [me])), ReplicationFactor=1))[0]["ErrorCode"], 42, "replicas and a factor")
    expect(create({"Configs": [{"Name": "retention.ms", "Value": None}]})[0]["ErrorCode"], 40, "a config without a value")
    twice = fresh("raw-twice")
    got = create({"Name": twice}, {"Name": twice}, {"Name": twice + "-other"})
    expect(sorted((t["Name"], t["ErrorCode"]) for t in got), [(twice, 42), (twice + "-other", 0)], "a name twice")
    # What is told of configs is what DescribeConfigs tells, of topics with and without their own in one request.
    own = [{}, {"retention.ms": "4711", "cleanup.policy": "compact"}, {"max.message.bytes": "5000"}, {}]
    got = create(*({"Configs": [{"Name": k, "Value": v} for k, v in c.items()]} for c in own))
    for t, configs in zip(sorted(got, key=lambda t: t["Name"]), own):
        expect({k["Name"]: k["Value"] for k in t["Configs"] if k["ConfigSource"] == 1}, configs, "configs of its own")
        expect({k["Name"]: k["Value"] for k in t["Configs"]},
               {k: v["Value"] for k, v in described(broker, 2, t["Name"], None).items()}, "configs")
    topic = broker.topic(partitions=2)

    def grow(*topics):
        got = broker.call(37, 3, {"TimeoutMs": 10000, "Topics": [dict({"Assignments": None}, **t) for t in topics]})
        return [r["ErrorCode"] for r in got["Results"]]

    for ids in ([], [4711], [me, me]):
        expect(grow({"Name": topic.name, "Count": 3, "Assignments": [{"BrokerIds": ids}]}), [39], f"replicas {ids}")
    expect(grow({"Name": topic.name, "Count": 4, "Assignments": [{"BrokerIds": [me]}]}), [39], "replicas of some only")
    expect(grow({"Name": topic.name, "Count": 3}, {"Name": topic.name, "Count": 4}), [42], "a topic twice")
    expect(grow({"Name": topic.name, "Count": 3, "Assignments": [{"BrokerIds": [me]}]}), [0], "replicas by hand")


@case
def delete_topics_details(broker):
    """Who names a topic twice deletes nothing."""
    topic, zero = broker.topic(), bytes(16)

    def delete(*topics):
        got = broker.call(DELETE_TOPICS, 6, {"TimeoutMs": 10000, "Topics": [
            {"Name": n, "TopicId": i} for n, i in topics]})["Responses"]
        return [r["ErrorCode"] for r in got]

    expect(delete((topic.name, topic.id)), [42], "name and id")
    expect(delete((None, zero)), [42], "neither")
    expect(delete((topic.name, zero), (topic.name, zero)), [42], "a name twice")
    expect(delete((topic.name, zero), (None, topic.id)), [42], "by name and by id")
    expect(topic.list_offset(-1)["ErrorCode"], 0, "it is still there")
    expect(delete((None, topic.id)), [0], "by id")


@case
def describe_topic_partitions_pages(broker):
    names = {}
    for letter, partitions in (("b", 3), ("a", 2), ("c", 1)):
        names[letter] = broker.topic(partitions=partitions, prefix=f"raw-page-{letter}").name

    def page(letters, limit, cursor=None):
        got = broker.call(75, 0, {"Topics": [{"Name": names[x]} for x in letters], "ResponsePartitionLimit": limit,
                                  "Cursor": cursor and {"TopicName": names[cursor[0]], "PartitionIndex": cursor[1]}})
        letter = {n: x for x, n in names.items()}
        after = got["NextCursor"]
        return ([(letter[t["Name"]], t["ErrorCode"], [p["PartitionIndex"] for p in t["Partitions"]]) for t in got["Topics"]],
                after and (letter[after["TopicName"]], after["PartitionIndex"]))

    expect(page("bac", 2000), ([("a", 0, [0, 1]), ("b", 0, [0, 1, 2]), ("c", 0, [0])], None), "in order of names")
    expect(page("bac", 1), ([("a", 0, [0])], ("a", 1)), "one partition")
    expect(page("bac", 2), ([("a", 0, [0, 1])], ("b", 0)), "a topic")
    expect(page("bac", 3), ([("a", 0, [0, 1]), ("b", 0, [0])], ("b", 1)), "into the next")
    expect(page("bac", 3, ("b", 1)), ([("b", 0, [1, 2]), ("c", 0, [0])], None), "from a cursor")
    expect(page("bac", 9, ("a", 7)), ([("a", 0, []), ("b", 0, [0, 1, 2]), ("c", 0, [0])], None), "a cursor at the end")
    expect([e for _, e, _ in page("ac", 9, ("b", 1))[0]], [42, 42], "a cursor in a topic that is not asked for")
    expect([e for _, e, _ in page("ac", 9, ("a", -1))[0]], [42, 42], "a cursor before the first partition")


@case
def list_offsets_of_the_future(broker):
    """Special timestamps that no version knows."""
    topic = broker.topic()
    topic.produce([b"x"])
    low, high = broker.advertised()[LIST_OFFSETS]
    since = {-1: 0, -2: 0, -3: 7, -4: 8, -5: 9, -6: 11, -7: 99, -100: 99}
    for version in range(low, high + 1):
        for stamp, first in since.items():
            wanted = 0 if version >= first else 35
            expect(topic.list_offset(stamp, version=version)["ErrorCode"], wanted, f"v{version} timestamp {stamp}")


@case
def group_admin_details(broker):
    topic, other = broker.topic(), broker.topic()
    group = fresh("raw-group")
    subscription = struct.pack(">hih", 1, 1, len(topic.name)) + topic.name.encode() + struct.pack(">ii", -1, 0)
    with broker.connect(broker.coordinator(group)) as c:
        me = c.call(JOIN, 3, {"GroupId": group, "SessionTimeoutMs": 30000, "RebalanceTimeoutMs": 30000, "MemberId": "",
                              "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": subscription}]})
        sync = {"GroupId": group, "GenerationId": me["GenerationId"], "MemberId": me["MemberId"], "GroupInstanceId": None,
                "ProtocolType": "consumer", "ProtocolName": "range",
                "Assignments": [{"MemberId": me["MemberId"], "Assignment": b"mine"}]}
        for wrong in ({"ProtocolType": None}, {"ProtocolName": None}, {"ProtocolName": "sticky"}, {"ProtocolType": "x"}):
            expect(c.call(SYNC, 5, dict(sync, **wrong))["ErrorCode"], 23, f"SyncGroup with {wrong}")
        expect(c.call(SYNC, 5, sync)["ErrorCode"], 0, "SyncGroup")

        def offset_delete(name, partition=0, of=group):
            got = c.call(47, 0, {"GroupId": of, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": partition}]}]})
            return got["ErrorCode"] or got["Topics"][0]["Partitions"][0]["ErrorCode"]

        expect(offset_delete(topic.name), 86, "OffsetDelete of a topic that is read")
        expect(offset_delete(other.name), 0, "OffsetDelete of another")
        expect(offset_delete("no-such-topic"), 3, "OffsetDelete of no topic")
        expect(offset_delete(other.name, 99), 3, "OffsetDelete of no partition")
        expect(offset_delete(other.name, of=""), 24, "OffsetDelete of no group")

        def listed(states=(), types=()):
            got = c.call(16, 5, {"StatesFilter": list(states), "TypesFilter": list(types)})
            return group in [g["GroupId"] for g in got["Groups"]]

        for states, there in ((["Stable"], True), (["STABLE"], True), (["Empty"], False), (["Nonsense"], False)):
            expect(listed(states), there, f"listed among {states}")
        for types, there in ((["classic"], True), (["Classic"], True), (["consumer"], False)):
            expect(listed((), types), there, f"listed among {types}")
        operations = c.call(15, 5, {"Groups": [group], "IncludeAuthorizedOperations": True})["Groups"][0]
        expect(operations["AuthorizedOperations"], 3400, "authorized operations")
        got = c.call(LEAVE, 5, {"GroupId": fresh("raw-no"), "Members": [{"MemberId": "m", "GroupInstanceId": None}]})
        expect((got["ErrorCode"], got["Members"][0]["ErrorCode"]), (0, 25), "leaving a group that is not there")
        c.call(LEAVE, 5, {"GroupId": group, "Members": [{"MemberId": me["MemberId"], "GroupInstanceId": None}]})
    got = broker.call(FIND_COORDINATOR, 4, {"KeyType": 0, "CoordinatorKeys": [group, group, "other", ""]})["Coordinators"]
    expect([(x["Key"], x["ErrorCode"]) for x in got], [(group, 0), (group, 0), ("other", 0), ("", 0)], "a batch of keys")
    expect(delete_internal(broker), 17, "DeleteRecords of an internal topic")


@case
def data_named_twice(broker):
    """Produce and Fetch that name a partition twice: the last word holds, and there is one answer."""
    first, second = broker.topic(partitions=3), broker.topic()
    none = Topic(broker, fresh("raw-none"), uuid.uuid4().bytes)
    letters = {first.name: "a", first.id: "a", second.name: "b", second.id: "b", none.name: "none", none.id: "none"}
    leader = first.leader()

    def data(topic, *partitions):
        return {"Name": topic.name, "TopicId": topic.id, "PartitionData": [
            {"Index": p, "Records": kmsg.batch([v], **options)} for p, v, options in partitions]}

    def produce(version, *topics, acks=-1):
        got = broker.call(PRODUCE, version, {"Acks": acks, "TimeoutMs": 10000, "TransactionalId": None,
                                             "TopicData": list(topics)}, leader)["Responses"]
        return sorted((letters[t["Name"] if version < 13 else t["TopicId"]], sorted(
            (p["Index"], p["ErrorCode"], p["BaseOffset"]) for p in t["PartitionResponses"])) for t in got)

    for n, version in enumerate((3, 8, 9, 12, 13)):
        expect(produce(version, data(first, (0, b"lost", {}), (1, b"lost", {}), (0, b"kept", {})),
                       data(second, (0, b"other", {})), data(first, (1, b"kept", {}), (2, b"two", {}))),
               [("a", [(0, 0, n), (1, 0, n), (2, 0, n)]), ("b", [(0, 0, n)])], f"Produce v{version}")
    for p in range(3):
        got = first.fetch(0, p)["Records"]
        expect((got.count(b"lost"), got.count(b"kept")), (0, 5 if p < 2 else 0), f"records of partition {p}")
    twice = (0, b"x", {}), (0, b"y", {})
    expect(produce(12, data(none, *twice), data(first, (7, b"x", {}), (7, b"x", {}))),
           [("a", [(7, 3, -1)]), ("none", [(0, 3, -1)])], "Produce to what is not there")
    expect(produce(13, data(none, *twice), data(none, *twice)), [("none", [(0, 100, -1)])], "Produce to no id")
    wrong = (0, b"x", {"crc_xor": 1})
    expect(produce(12, data(first, twice[0], wrong)), [("a", [(0, 2, -1)])], "the last word is wrong")
    expect(first.list_offset(-1)["Offset"], 5, "and nothing was appended")
    expect(produce(12, data(first, wrong, twice[0])), [("a", [(0, 0, 5)])], "the first word is wrong")
    with first.connect() as c:
        c.send(PRODUCE, 9, {"Acks": 0, "TimeoutMs": 1000, "TransactionalId": None, "TopicData": [data(first, *twice)]})
        expect(c.call(API_VERSIONS, 0, {})["ErrorCode"], 0, "acks=0 leaves the connection")
    wait_for(lambda: first.list_offset(-1)["Offset"] == 7, "one of the two records of acks=0")

    def at(topic, *partitions):
        return {"Topic": topic.name, "TopicId": topic.id, "Partitions": [
            {"Partition": p, "FetchOffset": offset, "CurrentLeaderEpoch": -1, "LastFetchedEpoch": -1,
             "LogStartOffset": -1, "PartitionMaxBytes": 1 << 20} for p, offset in partitions]}

    def fetch(version, *topics, session=0, epoch=-1, connection=None):
        q = dict(first.fetch_request(0), Topics=list(topics), SessionId=session, SessionEpoch=epoch,
                 ForgottenTopicsData=[])
        got = connection.call(FETCH, version, q) if connection else broker.call(FETCH, version, q, leader)
        return [(letters[t["Topic"] if version < 13 else t["TopicId"]], [
            (p["PartitionIndex"], p["ErrorCode"], kmsg.batches(p["Records"])[0][0] if p["Records"] else None)
            for p in t["Partitions"]]) for t in got["Responses"]], got.get("SessionId")

    asked = at(first, (0, 1), (1, 1), (0, 2)), at(second, (0, 0)), at(first, (1, 3), (2, 0))
    answer = [("a", [(0, 0, 2), (1, 0, 3)]), ("b", [(0, 0, 0)]), ("a", [(2, 0, 0)])]
    for version in (4, 6, 7, 12, 13, 16):
        expect(fetch(version, *asked)[0], answer, f"Fetch v{version}")
    for version in (7, 12, 13, 16):
        with broker.connect(leader) as c:
            got, session = fetch(version, *asked, epoch=0, connection=c)
            expect((got, session != 0), (answer, True), f"Fetch v{version} with a session")
            got = fetch(version, at(first, (0, 3), (0, 1), (0, 4)), session=session, epoch=1, connection=c)[0]
            expect(got, [("a", [(0, 0, 4), (1, 0, 3)])] + answer[1:], f"Fetch v{version} that changes a session")
    expect(fetch(12, at(none, (0, 0), (0, 1)))[0], [("none", [(0, 3, None)])], "Fetch of no topic")
    expect(fetch(13, at(none, (0, 0), (0, 1)))[0], [("none", [(0, 100, None)])], "Fetch of no id")


@case
def named_twice(broker):
    """What is named more than once is answered once."""
    first, second = broker.topic(partitions=3), broker.topic()
    for _ in range(5):
        first.produce([b"x"])
    a, b, none, zero = first.name, second.name, fresh("raw-none"), bytes(16)

    def answers(topics, name, partition, *fields):
        return sorted((t[name], sorted(tuple(p[f] for f in (partition, *fields)) for p in t["Partitions"]))
                      for t in topics)

    def offsets(*topics, version=11):
        got = broker.call(LIST_OFFSETS, version, {"ReplicaId": -1, "TimeoutMs": 1000, "Topics": [
            {"Name": n, "Partitions": [{"PartitionIndex": p, "CurrentLeaderEpoch": -1, "Timestamp": t} for p, t in of]}
            for n, of in topics]})
        return answers(got["Topics"], "Name", "PartitionIndex", "ErrorCode", "Offset")

    for version in (1, 11):
        expect(offsets((a, [(0, -1), (1, -1), (0, -2)]), version=version), [(a, [(0, 42, -1), (1, 0, 0)])],
               f"ListOffsets v{version}")
    expect(offsets((a, [(0, -1), (1, -1)]), (b, [(0, -1)]), (a, [(0, -1), (2, -1)])),
           sorted([(a, [(0, 42, -1), (1, 0, 0), (2, 0, 0)]), (b, [(0, 0, 0)])]), "a topic with the same partition again")
    expect(offsets((none, [(0, -1), (0, -1)])), [(none, [(0, 42, -1)])], "ListOffsets of no topic")

    def delete(*topics):
        got = broker.call(DELETE_RECORDS, 2, {"TimeoutMs": 5000, "Topics": [
            {"Name": n, "Partitions": [{"PartitionIndex": p, "Offset": o} for p, o in of]} for n, of in topics]})
        return answers(got["Topics"], "Name", "PartitionIndex", "ErrorCode", "LowWatermark")

    expect(delete((a, [(0, 2), (1, 0), (0, 1)])), [(a, [(0, 0, 1), (1, 0, 0)])], "DeleteRecords: the last word holds")
    expect(delete((a, [(0, 3)]), (b, [(0, 0)]), (a, [(0, 2), (1, 0)])),
           sorted([(a, [(0, 0, 2), (1, 0, 0)]), (b, [(0, 0, 0)])]), "over two entries of a topic")
    expect(delete((a, [(0, 4), (0, 99)])), [(a, [(0, 1, -1)])], "the last word is wrong")
    expect(first.list_offset(-2)["Offset"], 2, "and nothing was deleted")
    expect(delete((none, [(0, 1), (0, 1)]), (none, [(0, 3)])), [(none, [(0, 3, -1)])], "DeleteRecords of no topic")

    def metadata(*topics, version=12):
        got = broker.call(METADATA, version, {"AllowAutoTopicCreation": False, "Topics": [
            {"Name": n, "TopicId": i} for n, i in topics]})["Topics"]
        return sorted((t["Name"] or "", t["ErrorCode"], len(t["Partitions"])) for t in got)

    for version in (1, 12):
        expect(metadata((a, zero), (b, zero), (a, zero), version=version), sorted([(a, 0, 3), (b, 0, 1)]), "Metadata")
    expect(metadata((None, first.id), (None, first.id)), [(a, 0, 3)], "Metadata by id")
    expect(metadata((none, zero), (none, zero)), [(none, 3, 0)], "Metadata of no topic")
    expect(metadata((None, b"1" * 16), (None, b"1" * 16)), [("", 100, 0)], "Metadata of no id")

    group = fresh("raw-group")
    got = broker.call_until(42, 2, {"GroupsNames": [group, group + "-2", group]}, broker.coordinator(group))["Results"]
    expect(sorted((r["GroupId"], r["ErrorCode"]) for r in got), [(group, 69), (group + "-2", 69)], "DeleteGroups")
    got = broker.call(35, 4, {"Topics": [{"Topic": n, "Partitions": of} for n, of in
                                         ((a, [1, 0, 0, 77]), (b, [0]), (none, [0]), (a, [0, 2]))]})["Results"][0]
    expect(sorted((t["Name"], sorted(p["PartitionIndex"] for p in t["Partitions"])) for t in got["Topics"]),
           sorted([(a, [0, 1, 2]), (b, [0])]), "DescribeLogDirs")


def delete_internal(broker):
    found = broker.call(METADATA, 12, {"Topics": [{"Name": "__consumer_offsets"}]})
    nodes = {b["NodeId"]: (b["Host"], b["Port"]) for b in found["Brokers"]}
    part = found["Topics"][0]["Partitions"][0]
    got = broker.call(DELETE_RECORDS, 2, {"TimeoutMs": 5000, "Topics": [{"Name": "__consumer_offsets", "Partitions": [
        {"PartitionIndex": part["PartitionIndex"], "Offset": -1}]}]}, nodes[part["LeaderId"]])
    return got["Topics"][0]["Partitions"][0]["ErrorCode"]


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(CASES))
        return
    broker = Broker(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        start = time.monotonic()
        CASES[name](broker)
        broker.serves()
        print(f"{name}: passed in {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
