"""leat.durability=object on a real S3 server: tests of tests/s3/run.

What is acknowledged must survive the loss of the disk, or of a log that was in memory only, and a produce may take
little longer than the store's own put.
"""
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

BENCH = "leat-bench"

# Sends numbered records until told to stop, through everything that happens to the broker, and says which were
# acknowledged where. A retry must be known: enable_idempotence.
PRODUCER = """
import sys, threading
from kafka import KafkaProducer
address, topic, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = KafkaProducer(bootstrap_servers=address, enable_idempotence=True, acks="all", linger_ms=5,
                         retries=1000, delivery_timeout_ms=120000, request_timeout_ms=30000, max_block_ms=120000)
ending = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
out = threading.Lock()
def acked(number, meta):
    with out:
        print("acked", number, meta.partition, meta.offset, flush=True)
def failed(number, error):
    with out:
        print("failed", number, repr(error), flush=True)
while not ending.is_set():
    sent = producer.send(topic, value=b"%d %s" % (first, b"x" * (first % 400)), partition=first % 4)
    sent.add_callback(lambda meta, n=first: acked(n, meta)).add_errback(lambda e, n=first: failed(n, e))
    first += 1
    ending.wait(0.001)
producer.flush(120)
print("sent", first, flush=True)
"""

# A group's offset: committed, and read back after the broker came again.
COMMIT = """
import sys
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata
address, topic, verb, value = sys.argv[1:5]
consumer = KafkaConsumer(bootstrap_servers=address, group_id="g", enable_auto_commit=False)
tp = TopicPartition(topic, 0)
if verb == "commit":
    consumer.commit({tp: OffsetAndMetadata(int(value), "", -1)})
print(consumer.committed(tp))
"""

CREATE = """
import json, sys
from kafka.admin import KafkaAdminClient, NewTopic
address, topic, configs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
KafkaAdminClient(bootstrap_servers=address).create_topics([NewTopic(topic, 4, 1, topic_configs=configs)])
"""


def python(run, text, *words, **options):
    return subprocess.Popen([run.harness.install_python(), "-c", text, *words], text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def group(run, node, verb, value=0):
    done = python(run, COMMIT, node.address, "t", verb, str(value))
    out = done.communicate(timeout=60)[0]
    run.need(done.returncode == 0, f"{verb}: {out[-1000:]}")
    return out.split()[-1]


def create(run, node, topic, **configs):
    done = python(run, CREATE, node.address, topic, json.dumps(configs))
    out = done.communicate(timeout=60)[0]
    run.need(done.returncode == 0, f"create {topic}: {out[-1000:]}")


def read_all(run, node, topic):
    """{(partition, offset): number}"""
    done = subprocess.run(["kcat", "-b", node.address, "-t", topic, "-C", "-e", "-q", "-o", "beginning", "-f",
                           "%p %o %s\\n"], text=True, capture_output=True, timeout=150)
    run.need(done.returncode == 0, f"kcat -C: {done.stderr[-500:]}")
    rows = [line.split(" ")[:3] for line in done.stdout.splitlines()]
    return {(int(p), int(o)): int(n) for p, o, n in rows}


def ends(run, node, topic):
    """The sum of the partitions' ends, as consumers see them."""
    asked = [part for p in range(4) for part in ("-t", f"{topic}:{p}:-1")]
    done = subprocess.run(["kcat", "-b", node.address, "-Q", *asked], text=True, capture_output=True, timeout=30)
    offsets = re.findall(r"offset (\d+)", done.stdout)
    run.need(len(offsets) == 4, f"kcat -Q: {done.stdout} {done.stderr}")
    return sum(int(n) for n in offsets)


def check(run, node, lines, rounds):
    acked = {int(n): (int(p), int(o)) for n, p, o in re.findall(r"^acked (\d+) (\d+) (\d+)$", lines, re.M)}
    sent = re.search(r"^sent (\d+)$", lines, re.M)
    run.need(sent, lines[-1000:])
    there = read_all(run, node, "t")
    wrong = [n for n, at in acked.items() if there.get(at) != n]
    run.need(not wrong, f"{len(wrong)} acknowledged records are not where they were acknowledged: {wrong[:5]}")
    run.need(len(set(there.values())) == len(there), "a record is there twice")
    for partition in range(4):
        numbers = [n for (p, _), n in sorted(there.items()) if p == partition]
        run.need(numbers == sorted(numbers), f"partition {partition} is out of order")
    failed = lines.count("\nfailed ")
    run.need(len(acked) > 500 and failed == 0, f"{len(acked)} acknowledged, {failed} failed: {lines[-500:]}")
    print(f"   {rounds} disks lost, {len(acked)} records acknowledged, {len(there)} there", flush=True)


def test_lost(world, run, kind, settings, wal_path):
    """kill -9 under load, again and again, and each time the log's disk is gone."""
    node = run.node_of(world, world.server(kind), f"object-{len(settings)}-{kind}",
                       ["leat.durability=object", "offsets.topic.num.partitions=2", *settings])
    wal = os.path.join(node.directory, "data", "wal")
    rounds = 4
    try:
        node.start()
        create(run, node, "t")
        producer = python(run, PRODUCER, node.address, "t", "0")
        lines = []
        reader = threading.Thread(target=lambda: lines.append(producer.stdout.read()), daemon=True)
        reader.start()
        for i in range(rounds):
            time.sleep(3)
            at = group(run, node, "commit", 100 + i)
            node.kill()
            run.need(os.path.isdir(wal) == wal_path, f"{wal}: {os.path.isdir(wal)}")
            shutil.rmtree(wal, ignore_errors=True)
            node.start()
            run.need(group(run, node, "committed") == at == str(100 + i), "a committed offset is gone")
        time.sleep(2)
        producer.stdin.close()
        producer.wait(150)
        reader.join(10)
        check(run, node, "".join(lines), rounds)
        run.need(node.stop() == 0, "did not stop in order")
        node.start()
        check(run, node, "".join(lines), rounds)
    finally:
        node.stop()


def test_refused(world, run):
    """A log on a disk that other topics need is missed, unless the operator says otherwise."""
    server = run.S3Server("versitygw", os.path.join(world.directory, "refused-server"), run.harness.free_ports(1)).start()
    node = run.node_of(world, server, "refused", ["wal.seal_age=30s"])
    try:
        node.start()
        create(run, node, "own", **{"leat.durability": "object"})
        create(run, node, "local")
        run.produce(node, "own", 0, 1000)
        run.produce(node, "local", 0, 1000, size=10)
        server.stop()  # nothing more gets there
        run.produce(node, "local", 1000, 1000, size=10)
        node.kill()
        server.start()
        shutil.rmtree(os.path.join(node.directory, "data", "wal"))
        try:
            node.start()
            run.need(False, "it started without the log of a topic with leat.durability=local")
        except run.harness.Missing as e:
            run.need("wal.missing" in str(e), f"the message names no remedy: {e}")
        node.settings.append("wal.missing=accept")
        node.start()
        run.need_all(node, "own", 1000)
        run.need(len(run.consume(node, "local")) <= 1000, "more than was in the store")
        run.produce(node, "local", 0, 10)
    finally:
        node.stop()
        server.stop()


def test_away(world, run):
    """Without the store nothing is acknowledged or shown; when it is back, all that was written is there."""
    server = run.S3Server("versitygw", os.path.join(world.directory, "away-server"), run.harness.free_ports(1)).start()
    node = run.node_of(world, server, "away", ["leat.durability=object", "wal.path=none", "store.retry=100ms",
                                               "store.s3.retries=0"])
    try:
        node.start()
        create(run, node, "t")
        run.produce(node, "t", 0, 100)
        server.stop()
        late = subprocess.run(["kcat", "-b", node.address, "-t", "t", "-P", "-p", "0", "-X", "request.timeout.ms=2000",
                               "-X", "message.timeout.ms=5000"], input="7777 late\n", text=True, capture_output=True,
                              timeout=60)
        run.need(late.returncode != 0 and "timed out" in late.stderr, f"kcat: {late.returncode} {late.stderr}")
        run.need(ends(run, node, "t") == 100, "the high watermark moved without the store")
        run.need(node.metric("leat_upload_failures") > 0, "no upload failed")
        server.start()
        end = time.monotonic() + 20
        while 7777 not in run.consume(node, "t"):
            run.need(time.monotonic() < end, "what was written without the store never came")
            time.sleep(0.2)
        run.produce(node, "t", 100, 100)
    finally:
        node.stop()
        server.stop()


# ---- how fast ----

def quantile(values, q):
    return sorted(values)[int(q * (len(values) - 1))]


def bench(node, *words):
    done = subprocess.run([os.path.join(os.path.dirname(node.program), BENCH), "--brokers", node.address, "--create",
                           "--partitions", "4", "--quiet", "--json", *words], text=True, capture_output=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return json.loads(done.stdout)


def late_put():
    """A store some way off: three of a hundred puts take longer."""
    return 0.25 if random.random() < 0.03 else random.uniform(0.06, 0.12)


def proxied(world, run, name, settings):
    server = world.server("versitygw")
    proxy = world.proxy(server)
    proxy.set("none")
    node = run.node_of(world, server, name, settings)
    node.settings = [f"store.url={server.url(name, proxy.port)}" if s.startswith("store.url=") else s
                     for s in node.settings]
    return node, proxy


# What a produce waits for, one after the other; where a run is held up, one of them shows it.
STEPS = {"log": "leat_wal_write_seconds", "put": "leat_store_put_seconds", "registration": "leat_metadata_commit_seconds"}


def buckets(node):
    """{step: {bound: how many observations are not above}}"""
    text, found = node.metrics(), {}
    for step, name in STEPS.items():
        counts = found[step] = {}
        for bound, n in re.findall(rf'^{name}_bucket{{[^}}]*le="([^"]+)"}} (\d+)$', text, re.M):
            counts[bound] = counts.get(bound, 0) + int(n)
    return found


def steps_since(node, before):
    """The 99th percentile and the longest of each step, as bounds (powers of two), in words."""
    words = []
    for step, after in buckets(node).items():
        counts = sorted((float(bound), n - before[step].get(bound, 0)) for bound, n in after.items())
        total = counts[-1][1]
        p99, longest = (next(bound for bound, n in counts if n >= total * q) for q in (0.99, 1))
        words.append(f"{step} p99 <= {p99 * 1000:.0f} max <= {longest * 1000:.0f}")
    requests = ", ".join(f"{what} {node.metric(f'leat_s3_{what}_total'):.0f}" for what in ("hedges", "retries", "throttles"))
    return f"ms by metrics: {'; '.join(words)}; {requests}"


def measure(node, proxy, seconds=15, warmup=3):
    """Produces at a steady rate. Returns percentiles of it and of the puts in ms, and what the node says of its steps."""
    before = buckets(node)
    del proxy.put_seconds[:]
    got = bench(node, "--rate", "10000", "--record-bytes", "200", "--batch-records", "20", "--connections", "8",
                "--inflight", "64", "--duration", str(seconds), "--warmup", str(warmup))["produce_ms"]
    puts = list(proxy.put_seconds)
    return {"p50": got["p50"], "p99": got["p99"], "puts/s": len(puts) / (seconds + warmup),
            "put p50": quantile(puts, 0.5) * 1000, "put p99": quantile(puts, 0.99) * 1000}, steps_since(node, before)


def test_latency(world, run, name, settings):
    node, proxy = proxied(world, run, name, ["leat.durability=object", *settings])
    proxy.late = late_put
    try:
        node.start()
        got, steps = measure(node, proxy)
        print(f"   {name}: " + ", ".join(f"{k} {v:.0f}" for k, v in got.items()) + f"\n   {steps}", flush=True)
        run.need(got["p99"] <= 2 * got["put p99"] + 50, f"more than twice the store's own p99 and 50 ms: {got}; {steps}")
    finally:
        proxy.late = None
        node.stop()


def slow_puts():
    """The fiftieth each time, so no put is slow both times it is sent: that is a matter of luck, and of a longer run."""
    numbers = itertools.count(1)
    return lambda: 2.0 if next(numbers) % 50 == 0 else random.uniform(0.06, 0.12)


def test_slow_puts(world, run):
    """Two puts of a hundred take two seconds: what that does to a produce when they are sent twice, and when not."""
    p99 = {}
    for percent in (0, 5):
        node, proxy = proxied(world, run, f"slow-puts-{percent}", ["leat.durability=object",
                                                                   f"store.s3.hedge_puts={percent}"])
        proxy.late = slow_puts()
        try:
            node.start()
            # Until the driver knows what is slow, and the last put that waited without knowing is answered.
            got, steps = measure(node, proxy, 20, 8)
            p99[percent] = got["p99"]
            print(f"   hedge_puts={percent}: " + ", ".join(f"{k} {v:.0f}" for k, v in got.items()) + f"\n   {steps}",
                  flush=True)
            run.need((node.metric('leat_s3_hedges_total{op="put"}') > 0) == (percent > 0), "second requests")
        finally:
            proxy.late = None
            node.stop()
    run.need(p99[5] <= p99[0] / 2 and p99[5] <= 1000, f"produce p99 {p99[5]:.0f} ms, {p99[0]:.0f} without")


def test_throughput(world, run):
    """The same bandwidth to the store carries as much as with leat.durability=local."""
    rates = {}
    for mode in ("local", "object"):
        node, proxy = proxied(world, run, "throughput-" + mode, [f"leat.durability={mode}", "wal.size=64m",
                                                                 "memory.budget=64m"])
        proxy.late, proxy.rate = (lambda: 0.05), 16 * 2**20
        try:
            node.start()
            got = bench(node, "--connections", "16", "--inflight", "16", "--duration", "20", "--warmup", "10")
            rates[mode] = got["produced_bytes_per_s"] / 2**20
        finally:
            proxy.late, proxy.rate = None, 0
            node.stop()
    print(f"   MiB/s: local {rates['local']:.1f}, object {rates['object']:.1f}, the store's link 16", flush=True)
    run.need(rates["object"] >= 0.95 * rates["local"], "less than with leat.durability=local")


MERGE_WAIT, LINK = 10, 16
# As they are where nothing is set.
AS_SET = ["wal.size=512m", "memory.budget=256m", "wal.segment_bytes=16m", "wal.seal_age=30s", "store.run_bytes=32m",
          "store.merge_age=1h"]


def sample(node, samples, alive):
    """(time, MiB produced, MiB in bundles, seconds) once a second."""
    while alive():
        samples.append((time.monotonic(), node.metric("leat_produce_bytes_total") / 2**20,
                        node.metric("leat_store_bundle_bytes") / 2**20, node.metric("leat_merge_waiting_seconds") / 2))
        time.sleep(1)


def overdue(world, run, name, waits, settings):
    """A link that is full all the time: [(MiB/s, MiB unmerged)] of each `waits` times store.merge_wait."""
    node, proxy = proxied(world, run, name, ["leat.durability=object", f"store.merge_wait={MERGE_WAIT}s", *settings])
    proxy.late, proxy.rate = (lambda: 0.05), LINK * 2**20
    samples, parts = [], []
    try:
        node.start()
        load = threading.Thread(target=bench, args=(node, "--connections", "16", "--inflight", "16", "--warmup", "1",
                                                    "--duration", str(waits * MERGE_WAIT)))
        load.start()
        sample(node, samples, load.is_alive)
        load.join()
    finally:
        proxy.late, proxy.rate = None, 0
        node.stop()
    for part in range(waits):
        inside = [s for s in samples if part <= (s[0] - samples[0][0]) / MERGE_WAIT < part + 1]
        (began, first, _, _), (ended, last, unmerged, waited) = inside[0], inside[-1]
        parts.append(((last - first) / (ended - began), unmerged))
        print(f"   {parts[-1][0]:.1f} MiB/s, unmerged {unmerged:.0f} MiB, the oldest for {waited:.0f} s", flush=True)
    return parts


def test_sustained(world, run, name, settings):
    """Few partitions with much each go straight into runs: little is left to be merged, however long it takes."""
    parts = overdue(world, run, name, 6, settings)
    # In the first seconds nobody knows that the link is full; what goes into bundles then is merged in the next part.
    run.need(parts[0][0] >= 0.9 * LINK, "merging did not wait")
    # Each byte twice would be less than half. Ten seconds of a machine that others use may be short of more.
    later = [rate for rate, _ in parts[3:]]
    run.need(sum(later) >= 0.8 * LINK * len(later) and min(later) >= 0.6 * LINK,
             "the link carries other things than what is produced")
    run.need(parts[-1][1] <= MERGE_WAIT * LINK / 4, "much is unmerged")


def test_overdue(world, run):
    """No partition has enough for runs: at first merging leaves the link to uploads; what is unmerged then has a bound."""
    parts = overdue(world, run, "overdue", 9, ["wal.size=64m", "memory.budget=64m", "store.run_bytes=16m",
                                               "store.block_bytes=8m"])
    run.need(parts[0][0] >= 0.9 * LINK, "merging did not wait")
    run.need(parts[-1][1] <= 1.1 * parts[3][1], "what is unmerged goes on growing")
    run.need(max(unmerged for _, unmerged in parts) <= 2.5 * MERGE_WAIT * LINK, "more is unmerged than may be")


def tests(run):
    memory = ["wal.path=none"]
    return [("object-lost", test_lost, run, "versitygw", [], True),
            ("object-memory", test_lost, run, "versitygw", memory, False),
            ("object-refused", test_refused, run), ("object-away", test_away, run),
            ("object-latency", test_latency, run, "latency", []),
            ("object-latency-memory", test_latency, run, "latency-memory", memory),
            ("object-slow-puts", test_slow_puts, run), ("object-throughput", test_throughput, run),
            ("object-sustained-small", test_sustained, run, "sustained-small", ["wal.size=64m"]),
            ("object-sustained", test_sustained, run, "sustained", AS_SET),
            ("object-overdue", test_overdue, run)]
