"""kafka-python, a client of its own making: kafkapython_test.py HOST:PORT CASE"""
import threading

from common import CODECS, eventually, expect, fresh, main, sample_records
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata


def admin_client(address):
    return KafkaAdminClient(bootstrap_servers=address)


def make_topic(address, partitions=1, configs=None):
    name = fresh("kafkapython")
    client = admin_client(address)
    client.create_topics({name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs or {}}},
                         wait_for_metadata=True)
    client.close()
    return name


def send(address, topic, records, partition=0, **settings):
    producer = KafkaProducer(bootstrap_servers=address, max_request_size=1000000, linger_ms=5, **settings)
    answers = []
    for i, (key, value, headers, stamp) in enumerate(records):
        where = partition(i) if callable(partition) else partition
        answers.append(producer.send(topic, value=value, key=key, partition=where, headers=headers,
                                     timestamp_ms=stamp))
    producer.flush(60)
    offsets = [answer.get(60).offset for answer in answers]
    producer.close()
    return offsets


def consumer(address, group=None, **settings):
    return KafkaConsumer(bootstrap_servers=address, group_id=group, auto_offset_reset="earliest",
                         enable_auto_commit=False, check_crcs=True, session_timeout_ms=6000,
                         heartbeat_interval_ms=500, **settings)


def read(source, count):
    got = []

    def more():
        for records in source.poll(200).values():
            got.extend(records)
        return len(got) >= count
    eventually(more, f"{count} records", 60)
    return got


def roundtrip(address):
    for codec in CODECS:
        topic = make_topic(address)
        # This client has no null header values, nor records with neither key nor value.
        records = [(b"k" if k is None and v is None else k, v, [x for x in h if x[1] is not None], t)
                   for k, v, h, t in sample_records(600, 301)]
        offsets = send(address, topic, records, compression_type=None if codec == "none" else codec,
                       enable_idempotence=codec in ("none", "lz4"), acks="all")
        expect(offsets, list(range(600)), f"{codec} offsets")
        source = consumer(address)
        part = TopicPartition(topic, 0)
        source.assign([part])
        source.seek_to_beginning(part)
        for i, (message, (key, value, headers, stamp)) in enumerate(zip(read(source, 600), records)):
            expect(message.offset, i, "offset")
            expect(message.key, key, f"{codec} key {i}")
            expect(message.value, value, f"{codec} value {i}")
            expect(list(message.headers), headers, f"{codec} headers {i}")
            expect(message.timestamp, stamp, f"{codec} timestamp {i}")
        expect(source.end_offsets([part])[part], 600, "end offset")
        source.close()


class Member(threading.Thread):
    def __init__(self, address, group, topic, seen):
        super().__init__(daemon=True)
        self.source = consumer(address, group)
        self.topic, self.seen, self.assigned, self.ending = topic, seen, set(), threading.Event()
        self.start()

    def run(self):
        self.source.subscribe([self.topic])
        while not self.ending.is_set():
            for records in self.source.poll(100).values():
                self.seen.update(r.value for r in records)
                try:
                    self.source.commit()
                except KafkaError:
                    pass  # rebalancing: the next owner reads them again
            self.assigned = {p.partition for p in self.source.assignment()}
        self.source.close()

    def end(self):
        self.ending.set()
        self.join()


def numbered(first, last):
    return [(None, b"%d" % i, [], None) for i in range(first, last)]


def group(address):
    topic, name, seen = make_topic(address, 4), fresh("kafkapython-group"), set()
    one = Member(address, name, topic, seen)
    eventually(lambda: len(one.assigned) == 4, "the first member to own everything")
    send(address, topic, numbered(0, 80), lambda i: i % 4)
    two = Member(address, name, topic, seen)
    eventually(lambda: len(one.assigned) == 2 and len(two.assigned) == 2, "the members to share")
    send(address, topic, numbered(80, 160), lambda i: i % 4)
    eventually(lambda: len(seen) == 160, "all records to be seen")
    one.end()
    eventually(lambda: len(two.assigned) == 4, "the second member to own everything")
    two.end()
    send(address, topic, numbered(160, 164), lambda i: i % 4)
    source = consumer(address, name)
    source.subscribe([topic])
    expect(sorted(int(r.value) for r in read(source, 4)), list(range(160, 164)), "records after resuming")
    source.close()


def admin(address):
    client = admin_client(address)
    topic = make_topic(address, 2, {"retention.ms": "3600000"})
    expect(len(client.describe_cluster()["brokers"]) > 0, True, "nodes")
    try:
        client.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        raise AssertionError("a topic was created twice")
    except TopicAlreadyExistsError:
        pass
    client.create_partitions({topic: 3})
    eventually(lambda: len(client.describe_topics([topic])[0]["partitions"]) == 3, "three partitions")

    def retention():
        found = client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")
        return find(found, "retention.ms")
    eventually(lambda: "3600000" in str(retention()), "retention.ms as created")
    client.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "7200000"})])
    eventually(lambda: "7200000" in str(retention()), "the new retention.ms")
    send(address, topic, [(None, b"x", [], 1_700_000_000_000 + i) for i in range(20)], 1)
    part = TopicPartition(topic, 1)

    def offset(spec):
        return client.list_partition_offsets({part: spec})[part].offset
    expect([offset(s) for s in (OffsetSpec.EARLIEST, OffsetSpec.LATEST, OffsetSpec.MAX_TIMESTAMP,
                                1_700_000_000_007)], [0, 20, 19, 7], "offsets")
    client.delete_records({part: 5})
    expect(offset(OffsetSpec.EARLIEST), 5, "earliest after deleting")
    expect(topic in str(client.describe_log_dirs({topic: [0, 1, 2]})), True, "the topic in the log dirs")
    expect("0" in str(client.describe_producers([part])), True, "producers")
    groups_admin(client, address, topic)
    client.delete_topics([topic])
    eventually(lambda: topic not in client.list_topics(), "the topic to be gone")


def find(tree, name):
    """The entry called name in nested dicts and lists."""
    if isinstance(tree, dict):
        if name in tree:
            return tree[name]
        tree = list(tree.values())
    for part in tree if isinstance(tree, list) else []:
        found = find(part, name)
        if found is not None:
            return found
    return None


def groups_admin(client, address, topic):
    name, part = fresh("kafkapython-group"), TopicPartition(topic, 1)
    source = consumer(address, name)
    source.subscribe([topic])
    expect(len(read(source, 15)), 15, "records read")
    source.commit()
    expect(name in str(client.list_groups()), True, "listed")
    expect("Stable" in str(client.describe_groups([name])), True, "a stable group")
    source.close()
    eventually(lambda: "Empty" in str(client.describe_groups([name])), "an empty group")
    expect(client.list_group_offsets({name: None})[name][part].offset, 20, "committed")
    client.alter_group_offsets(name, {part: OffsetAndMetadata(7, "", -1)})
    expect(client.list_group_offsets({name: None})[name][part].offset, 7, "altered")
    client.delete_group_offsets(name, [part])
    left = client.list_group_offsets({name: None})[name]
    expect(part not in left or left[part].offset == -1, True, "deleted offset")
    client.delete_groups([name])
    expect(name in str(client.list_groups()), False, "listed after deletion")


main({"roundtrip": roundtrip, "group": group, "admin": admin})
