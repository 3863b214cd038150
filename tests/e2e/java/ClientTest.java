import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** Apache Kafka's own client: ClientTest HOST:PORT CASE. */
public final class ClientTest {
    private static final Duration POLL = Duration.ofMillis(200);
    private static String broker;

    private interface Case { void run() throws Exception; }

    public static void main(String[] arguments) throws Exception {
        broker = arguments[0];
        Map<String, Case> cases = Map.of("roundtrip", ClientTest::roundtrip, "idempotent", ClientTest::idempotent,
            "group", ClientTest::group, "resume", ClientTest::resume, "timestamps", ClientTest::timestamps,
            "admin", ClientTest::admin, "configs", ClientTest::configs, "groups_admin", ClientTest::groupsAdmin);
        int code = 1;
        try {
            cases.get(arguments[1]).run();
            code = 0;
        } catch (Throwable problem) {
            problem.printStackTrace();
        }
        System.err.flush();
        Runtime.getRuntime().halt(code);
    }

    // ---- helpers ----
    static void check(boolean good, String what) {
        if (!good) throw new AssertionError(what);
    }

    static void same(Object wanted, Object got, String what) {
        if (!Objects.equals(wanted, got)) throw new AssertionError(what + ": got " + got + ", expected " + wanted);
    }

    static String fresh(String prefix) {
        return prefix + "-" + UUID.randomUUID().toString().substring(0, 10);
    }

    static Admin adminClient() {
        return Admin.create(Map.of("bootstrap.servers", broker, "default.api.timeout.ms", "30000"));
    }

    static String topic(Admin admin, int partitions) throws Exception {
        String name = fresh("java");
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
        return name;
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", broker));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", broker,
            "group.protocol", "classic", "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> readAll(Consumer<byte[], byte[]> from, TopicPartition part,
            int count) {
        from.assign(List.of(part));
        from.seekToBeginning(List.of(part));
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long end = System.nanoTime() + 60_000_000_000L;
        while (records.size() < count && System.nanoTime() < end) from.poll(POLL).forEach(records::add);
        same(count, records.size(), "records of " + part);
        return records;
    }

    static <T> void fails(Class<? extends Exception> wanted, KafkaFuture<T> future, String what) throws Exception {
        try {
            future.get();
        } catch (ExecutionException problem) {
            check(wanted.isInstance(problem.getCause()), what + " failed with " + problem.getCause());
            return;
        }
        throw new AssertionError(what + " did not fail with " + wanted.getSimpleName());
    }

    interface Condition { boolean holds() throws Exception; }

    static void eventually(Condition condition, String what) throws Exception {
        long end = System.nanoTime() + 20_000_000_000L;
        while (!condition.holds()) {
            check(System.nanoTime() < end, "waited 20 s for " + what);
            Thread.sleep(50);
        }
    }

    // ---- records ----
    static void roundtrip() throws Exception {
        try (Admin admin = adminClient()) {
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) roundtrip(topic(admin, 3), codec);
        }
    }

    static void roundtrip(String topic, String codec) throws Exception {
        Random random = new Random(1);
        int count = 2000;
        List<List<ProducerRecord<byte[], byte[]>>> sent = List.of(new ArrayList<>(), new ArrayList<>(),
            new ArrayList<>());
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        try (var to = producer(Map.of("compression.type", codec, "linger.ms", 5, "acks", "all",
                "max.request.size", 1000000))) {
            for (int i = 0; i < count; i++) {
                byte[] key = i % 5 == 0 ? null : ("key-" + i).getBytes();
                byte[] value = i % 7 == 0 ? null : i % 11 == 0 ? new byte[0] : ("value " + i).repeat(i % 50).getBytes();
                if (i % 500 == 499) {
                    value = new byte[900 << 10];
                    random.nextBytes(value);
                }
                var record = new ProducerRecord<>(topic, i % 3, 1_700_000_000_000L + i, key, value);
                if (i % 4 == 0) record.headers().add("number", Integer.toString(i).getBytes()).add("none", null);
                if (i % 8 == 0) record.headers().add("number", new byte[0]);
                sent.get(i % 3).add(record);
                answers.add(to.send(record));
            }
            long[] next = new long[3];
            for (int i = 0; i < count; i++) same(next[i % 3]++, answers.get(i).get().offset(), codec + ": offset of " + i);
        }
        try (var from = consumer(Map.of("check.crcs", true))) {
            for (int p = 0; p < 3; p++) {
                var got = readAll(from, new TopicPartition(topic, p), sent.get(p).size());
                for (int i = 0; i < got.size(); i++) same(codec + " " + p, sent.get(p).get(i), got.get(i), i);
            }
        }
    }

    static void same(String what, ProducerRecord<byte[], byte[]> wanted, ConsumerRecord<byte[], byte[]> got, long offset) {
        same(offset, got.offset(), what + ": offset");
        same(wanted.timestamp(), got.timestamp(), what + ": timestamp at " + offset);
        check(Arrays.equals(wanted.key(), got.key()), what + ": key at " + offset);
        check(Arrays.equals(wanted.value(), got.value()), what + ": value at " + offset);
        Header[] left = wanted.headers().toArray(), right = got.headers().toArray();
        same(left.length, right.length, what + ": headers at " + offset);
        for (int i = 0; i < left.length; i++) {
            same(left[i].key(), right[i].key(), what + ": header at " + offset);
            check(Arrays.equals(left[i].value(), right[i].value()), what + ": header value at " + offset);
        }
    }

    /** Idempotent, five requests in flight, tiny batches: everything once and in order. */
    static void idempotent() throws Exception {
        int count = 20000;
        String topic;
        try (Admin admin = adminClient()) {
            topic = topic(admin, 2);
            try (var to = producer(Map.of("enable.idempotence", true, "acks", "all", "batch.size", 500,
                    "max.in.flight.requests.per.connection", 5, "linger.ms", 0))) {
                for (int i = 0; i < count; i++) to.send(new ProducerRecord<>(topic, i % 2, null, ("n" + i).getBytes()));
                to.flush();
                var described = admin.describeProducers(List.of(new TopicPartition(topic, 0)))
                    .partitionResult(new TopicPartition(topic, 0)).get();
                same(1, described.activeProducers().size(), "active producers");
                same(count / 2 - 1, described.activeProducers().get(0).lastSequence(), "last sequence");
            }
        }
        try (var from = consumer(Map.of())) {
            for (int p = 0; p < 2; p++) {
                var got = readAll(from, new TopicPartition(topic, p), count / 2);
                for (int i = 0; i < got.size(); i++) {
                    same((long) i, got.get(i).offset(), "offset");
                    same("n" + (2 * i + p), new String(got.get(i).value()), "value at " + i);
                }
            }
        }
    }

    // ---- groups ----
    /** A member of a group in a thread of its own; KafkaConsumer belongs to one thread. */
    static final class Member extends Thread {
        final Set<Integer> assigned = ConcurrentHashMap.newKeySet();
        final Set<String> seen;
        volatile boolean ending;
        volatile Throwable problem;
        final KafkaConsumer<byte[], byte[]> from;
        final String topic;

        Member(String group, String topic, Set<String> seen, Map<String, Object> more) {
            Map<String, Object> settings = new HashMap<>(Map.of("group.id", group, "session.timeout.ms", 10000,
                "heartbeat.interval.ms", 500));
            settings.putAll(more);
            from = consumer(settings);
            this.topic = topic;
            this.seen = seen;
            start();
        }

        @Override public void run() {
            try (from) {
                from.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    @Override public void onPartitionsRevoked(Collection<TopicPartition> parts) {
                        parts.forEach(p -> assigned.remove(p.partition()));
                    }
                    @Override public void onPartitionsAssigned(Collection<TopicPartition> parts) {
                        parts.forEach(p -> assigned.add(p.partition()));
                    }
                });
                while (!ending) {
                    var got = from.poll(POLL);
                    got.forEach(r -> seen.add(new String(r.value())));
                    try {
                        if (!got.isEmpty()) from.commitSync();
                    } catch (CommitFailedException | RebalanceInProgressException again) {
                        // the next owner of the partition reads these again
                    }
                }
            } catch (Throwable problem) {
                this.problem = problem;
            }
        }

        void end() throws Exception {
            ending = true;
            join();
            if (problem != null) throw new AssertionError("member failed", problem);
        }
    }

    static void send(String topic, int partitions, int first, int last) throws Exception {
        try (var to = producer(Map.of())) {
            for (int i = first; i < last; i++) to.send(new ProducerRecord<>(topic, i % partitions, null, ("" + i).getBytes()));
        }
    }

    static void group() throws Exception {
        for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            String topic, group = fresh("java-group");
            try (Admin admin = adminClient()) { topic = topic(admin, 6); }
            Map<String, Object> settings = Map.of("partition.assignment.strategy",
                "org.apache.kafka.clients.consumer." + assignor);
            Set<String> seen = ConcurrentHashMap.newKeySet();
            Member one = new Member(group, topic, seen, settings);
            eventually(() -> one.assigned.size() == 6, "the first member to own everything");
            send(topic, 6, 0, 600);
            Member two = new Member(group, topic, seen, settings);
            eventually(() -> one.assigned.size() == 3 && two.assigned.size() == 3, "the members to share");
            check(Collections.disjoint(one.assigned, two.assigned), "a partition has two owners");
            send(topic, 6, 600, 1200);
            eventually(() -> seen.size() == 1200, "all records to be seen");
            one.end();
            eventually(() -> two.assigned.size() == 6, "the second member to own everything");
            send(topic, 6, 1200, 1800);
            eventually(() -> seen.size() == 1800, "all records to be seen by the second member");
            two.end();
        }
    }

    static void resume() throws Exception {
        String group = fresh("java-group");
        try (Admin admin = adminClient()) {
            String topic = topic(admin, 1);
            TopicPartition part = new TopicPartition(topic, 0);
            send(topic, 1, 0, 100);
            try (var from = consumer(Map.of("group.id", group, "max.poll.records", 40))) {
                from.subscribe(List.of(topic));
                int got = 0;
                while (got < 40) got += from.poll(POLL).count();
                from.commitSync(Map.of(part, new OffsetAndMetadata(40, Optional.of(0), "forty")));
            }
            try (var from = consumer(Map.of("group.id", group, "group.instance.id", "static-1"))) {
                from.subscribe(List.of(topic));
                var got = new ArrayList<ConsumerRecord<byte[], byte[]>>();
                while (got.size() < 60) from.poll(POLL).forEach(got::add);
                same(40L, got.get(0).offset(), "first offset after resuming");
                var committed = from.committed(Set.of(part)).get(part);
                same("forty", committed.metadata(), "metadata of the commit");
                from.commitSync();
                same(100L, from.committed(Set.of(part)).get(part).offset(), "committed");
            }
            same(100L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(part).offset(),
                "offset seen by the admin client");
        }
    }

    static void timestamps() throws Exception {
        try (Admin admin = adminClient(); var to = producer(Map.of()); var from = consumer(Map.of())) {
            String topic = topic(admin, 1);
            TopicPartition part = new TopicPartition(topic, 0);
            long base = 1_700_000_000_000L;
            for (int i = 0; i < 10; i++) {
                to.send(new ProducerRecord<>(topic, 0, base + (i == 5 ? 100 : i), null, new byte[10])).get();
            }
            var found = from.offsetsForTimes(Map.of(part, base + 4));
            same(4L, found.get(part).offset(), "offset for a time");
            same(base + 4, found.get(part).timestamp(), "its timestamp");
            same(null, from.offsetsForTimes(Map.of(part, base + 1000)).get(part), "offset for a time too late");
            same(0L, from.beginningOffsets(List.of(part)).get(part), "beginning");
            same(10L, from.endOffsets(List.of(part)).get(part), "end");
            Map<OffsetSpec, Long> specs = Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 10L,
                OffsetSpec.maxTimestamp(), 5L, OffsetSpec.forTimestamp(base + 7), 5L,
                OffsetSpec.earliestLocal(), 0L, OffsetSpec.latestTiered(), -1L);
            for (var spec : specs.entrySet()) {
                var got = admin.listOffsets(Map.of(part, spec.getKey())).partitionResult(part).get();
                same(spec.getValue(), got.offset(), spec.getKey().getClass().getSimpleName());
            }
            tiers(admin, to);
            String stamped = fresh("java");
            admin.createTopics(List.of(new NewTopic(stamped, 1, (short) 1)
                .configs(Map.of("message.timestamp.type", "LogAppendTime")))).all().get();
            long before = System.currentTimeMillis();
            for (String codec : List.of("none", "gzip", "zstd")) {
                try (var packed = producer(Map.of("compression.type", codec))) {
                    var meta = packed.send(new ProducerRecord<>(stamped, 0, base, null, new byte[100])).get();
                    check(meta.timestamp() >= before, "append time in the answer");
                }
            }
            for (var record : readAll(from, new TopicPartition(stamped, 0), 3)) {
                same("LogAppendTime", record.timestampType().toString(), "type of timestamp");
                check(record.timestamp() >= before, "append time in the record");
            }
        }
    }

    /** The offsets of tiered storage, once all of the topic has gone to the object store. */
    static void tiers(Admin admin, Producer<byte[], byte[]> to) throws Exception {
        String topic = fresh("java");
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)
            .configs(Map.of("remote.storage.enable", "true", "local.retention.bytes", "1000")))).all().get();
        TopicPartition part = new TopicPartition(topic, 0);
        for (int i = 0; i < 5; i++) {
            to.send(new ProducerRecord<>(topic, 0, null, new byte[10])).get();
        }
        long end = System.currentTimeMillis() + 60_000;
        while (admin.listOffsets(Map.of(part, OffsetSpec.latestTiered())).partitionResult(part).get().offset() < 4
            && System.currentTimeMillis() < end) {
            Thread.sleep(100);
        }
        same(4L, admin.listOffsets(Map.of(part, OffsetSpec.latestTiered())).partitionResult(part).get().offset(),
            "the last offset in the object store");
        same(0L, admin.listOffsets(Map.of(part, OffsetSpec.earliest())).partitionResult(part).get().offset(), "earliest");
        long local = admin.listOffsets(Map.of(part, OffsetSpec.earliestLocal())).partitionResult(part).get().offset();
        check(local >= 0 && local <= 5, "earliest local " + local);
        same(5L, admin.listOffsets(Map.of(part, OffsetSpec.earliestPendingUpload())).partitionResult(part).get().offset(),
            "what would be uploaded next");
    }

    // ---- administration ----
    static void admin() throws Exception {
        try (Admin admin = adminClient(); var to = producer(Map.of())) {
            var cluster = admin.describeCluster();
            check(!cluster.nodes().get().isEmpty(), "nodes");
            check(cluster.clusterId().get().length() > 0, "cluster id");
            check(cluster.controller().get() != null, "controller");
            String topic = fresh("java");
            var made = admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1)
                .configs(Map.of("retention.ms", "3600000"))));
            same(2, made.numPartitions(topic).get(), "partitions made");
            same(1, made.replicationFactor(topic).get(), "replicas made");
            same("3600000", made.config(topic).get().get("retention.ms").value(), "config made");
            Uuid id = made.topicId(topic).get();
            fails(TopicExistsException.class, admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all(),
                "creating it again");
            fails(InvalidReplicationFactorException.class,
                admin.createTopics(List.of(new NewTopic(fresh("java"), 1, (short) 5))).all(), "five replicas");
            admin.createTopics(List.of(new NewTopic(fresh("java"), 1, (short) 1)),
                new CreateTopicsOptions().validateOnly(true)).all().get();
            check(admin.listTopics().names().get().contains(topic), "the topic is listed");
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            eventually(() -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()
                .size() == 4, "four partitions");
            var described = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id);
            same(topic, described.name(), "name found by id");
            fails(InvalidPartitionsException.class, admin.createPartitions(Map.of(topic,
                NewPartitions.increaseTo(3))).all(), "fewer partitions");
            fails(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(fresh("no"))).allTopicNames(),
                "describing what is not there");
            for (int i = 0; i < 50; i++) to.send(new ProducerRecord<>(topic, 3, null, new byte[1000])).get();
            deleteRecords(admin, new TopicPartition(topic, 3));
            logDirs(admin, topic);
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            eventually(() -> !admin.listTopics().names().get().contains(topic), "the topic to be gone");
            fails(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(topic)).all(), "deleting it again");
        }
    }

    static void deleteRecords(Admin admin, TopicPartition part) throws Exception {
        var low = admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(20))).lowWatermarks().get(part).get();
        same(20L, low.lowWatermark(), "low watermark");
        same(20L, admin.listOffsets(Map.of(part, OffsetSpec.earliest())).partitionResult(part).get().offset(), "earliest");
        fails(OffsetOutOfRangeException.class,
            admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(1000))).all(), "deleting beyond the end");
        try (var from = consumer(Map.of())) {
            same(20L, readAll(from, part, 30).get(0).offset(), "first record left");
        }
        admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(-1))).all().get();
        same(50L, admin.listOffsets(Map.of(part, OffsetSpec.earliest())).partitionResult(part).get().offset(),
            "earliest after deleting all");
    }

    static void logDirs(Admin admin, String topic) throws Exception {
        List<Integer> nodes = admin.describeCluster().nodes().get().stream().map(Node::id).collect(Collectors.toList());
        var dirs = admin.describeLogDirs(nodes).allDescriptions().get();
        Set<TopicPartition> found = new HashSet<>();
        for (var perNode : dirs.values()) {
            for (var dir : perNode.values()) {
                check(dir.error() == null, "log dir error " + dir.error());
                dir.replicaInfos().forEach((part, info) -> {
                    check(info.size() >= 0, "size of " + part);
                    found.add(part);
                });
            }
        }
        for (int p = 0; p < 4; p++) check(found.contains(new TopicPartition(topic, p)), "partition " + p + " in log dirs");
    }

    static Map<String, ConfigEntry> config(Admin admin, ConfigResource resource) throws Exception {
        return admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true)
            .includeDocumentation(true)).all().get().get(resource).entries().stream()
            .collect(Collectors.toMap(ConfigEntry::name, e -> e));
    }

    static void alter(Admin admin, ConfigResource resource, String name, String value, AlterConfigOp.OpType type)
            throws Exception {
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), type))))
            .all().get();
    }

    static void configs() throws Exception {
        try (Admin admin = adminClient()) {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, topic(admin, 1));
            same(ConfigEntry.ConfigSource.DEFAULT_CONFIG, config(admin, topic).get("retention.ms").source(), "source");
            alter(admin, topic, "retention.ms", "7200000", AlterConfigOp.OpType.SET);
            eventually(() -> config(admin, topic).get("retention.ms").value().equals("7200000"), "the new value");
            same(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, config(admin, topic).get("retention.ms").source(), "source");
            alter(admin, topic, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
            eventually(() -> config(admin, topic).get("cleanup.policy").value().equals("delete,compact"), "append");
            alter(admin, topic, "cleanup.policy", "delete", AlterConfigOp.OpType.SUBTRACT);
            eventually(() -> config(admin, topic).get("cleanup.policy").value().equals("compact"), "subtract");
            alter(admin, topic, "retention.ms", "", AlterConfigOp.OpType.DELETE);
            eventually(() -> config(admin, topic).get("retention.ms").source()
                == ConfigEntry.ConfigSource.DEFAULT_CONFIG, "the default again");
            fails(InvalidConfigurationException.class, admin.incrementalAlterConfigs(Map.of(topic,
                List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all(),
                "a bad value");
            String node = admin.describeCluster().nodes().get().iterator().next().idString();
            var brokerConfig = config(admin, new ConfigResource(ConfigResource.Type.BROKER, node));
            for (String name : List.of("num.partitions", "log.retention.ms", "message.max.bytes", "node.id")) {
                check(brokerConfig.containsKey(name), "broker config " + name);
            }
            // What the broker compresses itself must come back as it was.
            for (String codec : List.of("uncompressed", "gzip", "snappy", "lz4", "zstd")) {
                String packed = fresh("java");
                admin.createTopics(List.of(new NewTopic(packed, 1, (short) 1)
                    .configs(Map.of("compression.type", codec)))).all().get();
                roundtripOnce(packed);
            }
        }
    }

    static void roundtripOnce(String topic) throws Exception {
        int count = 0;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var to = producer(Map.of("compression.type", codec, "linger.ms", 20))) {
                for (int i = 0; i < 100; i++) {
                    to.send(new ProducerRecord<>(topic, 0, null, ("packed " + count++).getBytes()));
                }
            }
        }
        try (var from = consumer(Map.of("check.crcs", true))) {
            var got = readAll(from, new TopicPartition(topic, 0), count);
            for (int i = 0; i < count; i++) {
                same((long) i, got.get(i).offset(), topic + " offset");
                same("packed " + i, new String(got.get(i).value()), topic + " value");
            }
        }
    }

    static void groupsAdmin() throws Exception {
        try (Admin admin = adminClient()) {
            String topic = topic(admin, 2), group = fresh("java-group");
            TopicPartition zero = new TopicPartition(topic, 0), one = new TopicPartition(topic, 1);
            send(topic, 2, 0, 10);
            Member member = new Member(group, topic, ConcurrentHashMap.newKeySet(), Map.of("client.id", "seen-by-admin"));
            eventually(() -> member.assigned.size() == 2 && member.seen.size() == 10, "the member to read");
            var listed = admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get();
            check(listed.stream().anyMatch(g -> g.groupId().equals(group)), "the group is listed");
            eventually(() -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState()
                == GroupState.STABLE, "a stable group");
            var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            same(1, described.members().size(), "members");
            var seen = described.members().iterator().next();
            same("seen-by-admin", seen.clientId(), "client id");
            same(Set.of(zero, one), seen.assignment().topicPartitions(), "assignment");
            fails(GroupNotEmptyException.class, admin.deleteConsumerGroups(List.of(group)).all(), "deleting a group in use");
            member.end();
            eventually(() -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState()
                == GroupState.EMPTY, "an empty group");
            admin.alterConsumerGroupOffsets(group, Map.of(zero, new OffsetAndMetadata(1), one, new OffsetAndMetadata(2)))
                .all().get();
            same(1L, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(zero).offset(), "altered");
            admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get();
            var left = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            check(left.get(zero) == null && left.get(one).offset() == 2, "offsets left: " + left);
            admin.deleteConsumerGroups(List.of(group)).all().get();
            fails(GroupIdNotFoundException.class, admin.deleteConsumerGroups(List.of(group)).all(), "deleting it again");
            check(admin.listGroups().all().get().stream().noneMatch(g -> g.groupId().equals(group)), "still listed");
        }
    }
}
