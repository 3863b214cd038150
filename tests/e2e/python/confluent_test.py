"""librdkafka through confluent-kafka: confluent_test.py HOST:PORT CASE"""
import threading

from common import CODECS, eventually, expect, fresh, main, sample_records
from confluent_kafka import (Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, Producer,
                             TopicCollection, TopicPartition)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions,
                                   NewTopic, OffsetSpec)


def admin_client(address):
    return AdminClient({"bootstrap.servers": address})


def make_topic(address, partitions=1, config=None):
    name = fresh("confluent")
    client = admin_client(address)  # ends its requests when it goes, so it is kept until they are done
    client.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result(30)
    return name


def send(address, topic, records, partition=0, **settings):
    """Sends and returns the offsets in the order of sending."""
    answers = [None] * len(records)
    producer = Producer({"bootstrap.servers": address, "message.max.bytes": 1000000, "linger.ms": 5, **settings})

    def answered(i):
        def note(error, message):
            answers[i] = (error, message.offset())
        return note
    for i, (key, value, headers, stamp) in enumerate(records):
        where = partition(i) if callable(partition) else partition
        producer.produce(topic, value, key, where, on_delivery=answered(i), timestamp=stamp, headers=headers)
        producer.poll(0)
    expect(producer.flush(60), 0, "records left unsent")
    expect([e for e, _ in answers if e], [], "errors")
    return [offset for _, offset in answers]


def consumer(address, group=None, **settings):
    return Consumer({"bootstrap.servers": address, "group.id": group or fresh("confluent-group"),
                     "auto.offset.reset": "earliest", "enable.auto.commit": False, "check.crcs": True,
                     "session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "fetch.error.backoff.ms": 50,
                     **settings})


def read(source, count, seconds=60):
    got = []

    def more():
        for message in source.consume(1000, 0.2):
            if message.error():
                raise KafkaException(message.error())
            got.append(message)
        return len(got) >= count
    eventually(more, f"{count} records", seconds)
    return got


def roundtrip(address):
    for codec in CODECS:
        for idempotent in (False, True):
            topic = make_topic(address)
            records = sample_records(1000, 501)
            offsets = send(address, topic, records, **{"compression.type": codec, "enable.idempotence": idempotent})
            expect(offsets, list(range(1000)), f"{codec} offsets")
            source = consumer(address)
            source.assign([TopicPartition(topic, 0, 0)])
            got = read(source, 1000)
            for i, (message, (key, value, headers, stamp)) in enumerate(zip(got, records)):
                expect(message.offset(), i, "offset")
                expect(message.key(), key, f"{codec} key {i}")
                expect(message.value(), value, f"{codec} value {i}")
                expect(message.headers() or [], headers, f"{codec} headers {i}")
                expect(message.timestamp()[1], stamp, f"{codec} timestamp {i}")
            expect(source.get_watermark_offsets(TopicPartition(topic, 0)), (0, 1000), "watermarks")
            source.close()


class Member(threading.Thread):
    def __init__(self, address, group, topic, seen, strategy):
        super().__init__(daemon=True)
        self.source = consumer(address, group, **{"partition.assignment.strategy": strategy})
        self.topic, self.seen, self.assigned, self.ending = topic, seen, set(), threading.Event()
        self.cooperative = strategy.startswith("cooperative")
        self.start()

    def on_assign(self, source, parts):
        if self.cooperative:
            source.incremental_assign(parts)
        else:
            source.assign(parts)
        self.assigned |= {p.partition for p in parts}

    def on_revoke(self, source, parts):
        self.assigned -= {p.partition for p in parts}
        if self.cooperative:
            source.incremental_unassign(parts)
        else:
            source.unassign()

    def run(self):
        self.source.subscribe([self.topic], on_assign=self.on_assign, on_revoke=self.on_revoke)
        while not self.ending.is_set():
            message = self.source.poll(0.1)
            if message and not message.error():
                self.seen.add(message.value())
                try:
                    self.source.commit(message, asynchronous=False)
                except KafkaException:
                    pass  # rebalancing: the next owner reads it again
        self.source.close()

    def end(self):
        self.ending.set()
        self.join()


def numbered(first, last):
    return [(None, b"%d" % i, [], 0) for i in range(first, last)]


def group(address):
    for strategy in ("range", "cooperative-sticky"):
        topic, name, seen = make_topic(address, 6), fresh("confluent-group"), set()
        one = Member(address, name, topic, seen, strategy)
        eventually(lambda: len(one.assigned) == 6, "the first member to own everything")
        send(address, topic, numbered(0, 120), lambda i: i % 6)
        two = Member(address, name, topic, seen, strategy)
        eventually(lambda: len(one.assigned) == 3 and len(two.assigned) == 3, "the members to share")
        expect(one.assigned & two.assigned, set(), "partitions with two owners")
        send(address, topic, numbered(120, 240), lambda i: i % 6)
        eventually(lambda: len(seen) == 240, "all records to be seen")
        one.end()
        eventually(lambda: len(two.assigned) == 6, "the second member to own everything")
        two.end()
        # Committed: the next member starts after what was read.
        send(address, topic, numbered(240, 246), lambda i: i % 6)
        source = consumer(address, name, **{"partition.assignment.strategy": strategy})
        source.subscribe([topic])
        expect(sorted(int(m.value()) for m in read(source, 6)), list(range(240, 246)), "records after resuming")
        source.close()


def admin(address):
    client = admin_client(address)
    topic = make_topic(address, 2, {"retention.ms": "3600000"})
    cluster = client.describe_cluster().result(30)
    expect(len(cluster.nodes) > 0 and bool(cluster.cluster_id), True, "cluster")
    client.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    eventually(lambda: len(client.list_topics(topic, 10).topics[topic].partitions) == 4, "four partitions")
    described = client.describe_topics(TopicCollection([topic]))[topic].result(30)
    expect(len(described.partitions), 4, "partitions described")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    expect(client.describe_configs([resource])[resource].result(30)["retention.ms"].value, "3600000", "retention.ms")
    change = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)])
    client.incremental_alter_configs([change])[change].result(30)
    eventually(lambda: client.describe_configs([resource])[resource].result(30)["retention.ms"].value == "7200000",
               "the new retention.ms")
    send(address, topic, [(None, b"x", [], 1_700_000_000_000 + i) for i in range(20)], 1)
    part = TopicPartition(topic, 1)

    def offset(spec):
        return client.list_offsets({part: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED)[part] \
            .result(30).offset
    expect([offset(s) for s in (OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp(),
                                OffsetSpec.for_timestamp(1_700_000_000_007))], [0, 20, 19, 7], "offsets")
    source = consumer(address)
    expect(source.offsets_for_times([TopicPartition(topic, 1, 1_700_000_000_005)])[0].offset, 5, "offset for a time")
    part_5 = TopicPartition(topic, 1, 5)
    expect(client.delete_records([part_5])[part_5].result(30).low_watermark, 5, "low watermark")
    expect(source.get_watermark_offsets(part), (5, 20), "watermarks after deleting")
    groups_admin(client, address, topic)
    client.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, "the topic to be gone")


def groups_admin(client, address, topic):
    name = fresh("confluent-group")
    source = consumer(address, name)
    source.subscribe([topic])
    got = read(source, 15)
    source.commit(asynchronous=False)
    expect(len(got), 15, "records read")
    expect(name in [g.group_id for g in client.list_consumer_groups().result(30).valid], True, "listed")
    described = client.describe_consumer_groups([name])[name].result(30)
    expect((described.state.name, len(described.members)), ("STABLE", 1), "state and members")
    source.close()
    committed = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result(30)
    expect({p.partition: p.offset for p in committed.topic_partitions if p.offset > 0}, {1: 20}, "committed")
    client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(name, [TopicPartition(topic, 1, 7)])])[name] \
        .result(30)
    client.delete_consumer_groups([name])[name].result(30)
    expect(name in [g.group_id for g in client.list_consumer_groups().result(30).valid], False, "listed after deletion")


# ---- compaction ----

TINY = {"min.cleanable.dirty.ratio": "0.01", "segment.ms": "500", "max.compaction.lag.ms": "1000"}


def contents(address, topic, partition=0):
    """All records of a partition, [(offset, key, value)]."""
    source = consumer(address, **{"enable.partition.eof": True})
    low, high = source.get_watermark_offsets(TopicPartition(topic, partition), 10)
    source.assign([TopicPartition(topic, partition, low)])
    got = []

    def at_end():
        for message in source.consume(1000, 0.2):
            if message.error():  # the end
                continue
            got.append((message.offset(), message.key(), message.value()))
        return source.position([TopicPartition(topic, partition)])[0].offset >= high
    if high > low:
        eventually(at_end, f"the end of {topic}-{partition}")
    source.close()
    expect(sorted({o for o, _, _ in got}), [o for o, _, _ in got], "ascending offsets")
    return got


def newest(records):
    state = {}
    for _, key, value in records:
        state[key] = value
    return {k: v for k, v in state.items() if v is not None}


def compact(address):
    for codec in ("none", "zstd", "snappy"):
        topic = make_topic(address, 1, {"cleanup.policy": "compact", "delete.retention.ms": "1000", **TINY})
        wanted, sent = {}, 0
        for part in range(4):
            records = []
            for i in range(500):
                number = part * 500 + i
                key = b"key-%d" % (number * 7 % 40)
                value = None if number % 40 == 3 else b"value %d of %s " % (number, key) * 5
                records.append((key, value, [("n", b"%d" % number)], 0))
                wanted[key] = value
            sent += len(records)
            send(address, topic, records, **{"compression.type": codec, "enable.idempotence": part % 2 == 0})
            expect(newest(contents(address, topic)), {k: v for k, v in wanted.items() if v is not None}, "the map")
        wanted = {k: v for k, v in wanted.items() if v is not None}

        def small():
            # Kafka closes a segment when something is written to it.
            nonlocal sent
            send(address, topic, [(b"tick", b"%d" % sent, [], 0)], **{"compression.type": codec})
            wanted[b"tick"] = b"%d" % sent
            sent += 1
            got = contents(address, topic)
            expect(newest(got), wanted, "the map while it is compacted")
            expect(got[-1][0], sent - 1, "the last offset")
            # Tombstones go, too: only what is newest is left, and what came since.
            return len(got) < 2 * len(wanted) and all(v is not None for _, _, v in got)
        eventually(small, f"{topic} to shrink", 60)
    committed_offsets(address)


def committed_offsets(address):
    """Many commits of one group: its records are compacted away, its offset stays."""
    topic, name = make_topic(address), fresh("confluent-group")
    client = admin_client(address)
    source = consumer(address, name)
    part = TopicPartition(topic, 0)
    source.assign([part])
    for offset in range(300):
        part.offset = offset
        source.commit(offsets=[part], asynchronous=False)
    change = ConfigResource(ConfigResource.Type.TOPIC, "__consumer_offsets", incremental_configs=[
        ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in TINY.items()])
    client.incremental_alter_configs([change])[change].result(30)
    partitions = client.list_topics("__consumer_offsets", 10).topics["__consumer_offsets"].partitions

    def records():
        return [r for p in partitions for r in contents(address, "__consumer_offsets", p) if topic.encode() in r[1]]
    done = 300

    def small():
        nonlocal done
        part.offset = done
        source.commit(offsets=[part], asynchronous=False)
        done += 1
        return len(records()) < 100
    eventually(small, "the offsets topic to shrink", 60)
    expect(source.committed([TopicPartition(topic, 0)], 10)[0].offset, done - 1, "committed")
    source.close()


main({"roundtrip": roundtrip, "group": group, "admin": admin, "compact": compact})
