import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/**
 * The load of tests/crash/recover, with Apache Kafka's own clients:
 *   RecoverLoad HOST:PORT produce TOPIC FIRST MIB   records from number FIRST on; prints the next number
 *   RecoverLoad HOST:PORT read TOPIC                a line "PARTITION COUNT SHA256" for each, offsets without gaps
 *   RecoverLoad HOST:PORT commit TOPIC GROUP        commits the middle of each partition
 *   RecoverLoad HOST:PORT committed TOPIC GROUP     a line "PARTITION OFFSET" for each
 */
public final class RecoverLoad {
    private static final int PARTITIONS = 8, VALUE_BYTES = 1000;
    private static String broker, topic;

    public static void main(String[] a) throws Exception {
        broker = a[0];
        topic = a[2];
        switch (a[1]) {
            case "produce" -> produce(Long.parseLong(a[3]), Long.parseLong(a[4]));
            case "read" -> read();
            case "commit" -> commit(a[3]);
            case "committed" -> committed(a[3]);
            default -> throw new IllegalArgumentException(a[1]);
        }
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    /** Words, so that it looks like text and no two values are the same. */
    private static byte[] value(long number) {
        var text = new StringBuilder(VALUE_BYTES + 20);
        long x = number * 0x9e3779b97f4a7c15L + 1;
        while (text.length() < VALUE_BYTES) {
            x ^= x << 13;
            x ^= x >>> 7;
            x ^= x << 17;
            text.append(Long.toString(x, 36)).append(' ');
        }
        return text.toString().getBytes();
    }

    private static void produce(long first, long mib) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", broker))) {
            if (!admin.listTopics().names().get().contains(topic))
                admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1)
                    .configs(Map.of("retention.ms", "-1", "max.message.bytes", "2000000")))).all().get();
        }
        var problem = new AtomicReference<Exception>();
        long number = first, end = first + mib * (1 << 20) / (VALUE_BYTES + 20);
        try (var to = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", broker, "acks", "all",
                "enable.idempotence", "true", "linger.ms", "20", "batch.size", "262144", "delivery.timeout.ms",
                "600000", "buffer.memory", "67108864"), new ByteArraySerializer(), new ByteArraySerializer())) {
            for (; number < end && problem.get() == null; number++)
                to.send(new ProducerRecord<>(topic, (int) (number % PARTITIONS), Long.toString(number).getBytes(),
                    value(number)), (answer, e) -> { if (e != null) problem.compareAndSet(null, e); });
        }
        if (problem.get() != null) throw problem.get();
        System.out.println(number);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group) {
        return new KafkaConsumer<>(Map.of("bootstrap.servers", broker, "group.protocol", "classic", "group.id", group,
            "enable.auto.commit", "false", "auto.offset.reset", "earliest", "check.crcs", "true",
            "fetch.max.bytes", "16777216"), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static List<TopicPartition> parts() {
        var all = new ArrayList<TopicPartition>();
        for (int i = 0; i < PARTITIONS; i++) all.add(new TopicPartition(topic, i));
        return all;
    }

    private static void read() throws Exception {
        long[] next = new long[PARTITIONS], ends = new long[PARTITIONS];
        var hashes = new MessageDigest[PARTITIONS];
        long left = 0;
        try (var from = consumer("none")) {
            from.assign(parts());
            from.seekToBeginning(parts());
            for (var e : from.endOffsets(parts()).entrySet()) left += ends[e.getKey().partition()] = e.getValue();
            for (int i = 0; i < PARTITIONS; i++) hashes[i] = MessageDigest.getInstance("SHA-256");
            long came = System.nanoTime();
            while (left > 0) {
                var got = from.poll(Duration.ofMillis(500));
                if (!got.isEmpty()) came = System.nanoTime();
                if (System.nanoTime() - came > 60_000_000_000L) throw new IllegalStateException(left + " do not come");
                for (var r : got) {
                    int p = r.partition();
                    if (r.offset() != next[p]) throw new IllegalStateException(p + ": offset " + r.offset()
                        + " where " + next[p] + " was due");
                    next[p]++;
                    left--;
                    hashes[p].update(r.key());
                    hashes[p].update(r.value());
                }
            }
        }
        for (int i = 0; i < PARTITIONS; i++)
            System.out.println(i + " " + next[i] + " " + HexFormat.of().formatHex(hashes[i].digest()));
    }

    private static void commit(String group) {
        try (var from = consumer(group)) {
            from.assign(parts());
            var offsets = new HashMap<TopicPartition, OffsetAndMetadata>();
            from.endOffsets(parts()).forEach((p, end) -> offsets.put(p, new OffsetAndMetadata(end / 2, "half")));
            from.commitSync(offsets);
        }
    }

    private static void committed(String group) {
        try (var from = consumer(group)) {
            var found = from.committed(new HashSet<>(parts()));
            for (var p : parts())
                System.out.println(p.partition() + " " + (found.get(p) == null ? "none" : found.get(p).offset()
                    + " " + found.get(p).metadata()));
        }
    }
}
