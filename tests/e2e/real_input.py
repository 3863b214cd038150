"""The corpus of real_input.sh, and the check of what came back.

real_input.py corpus CACHE MIB               builds the corpus once, prints its path
real_input.py lines CORPUS SUMMARY           checks the console consumer's output on stdin
real_input.py client CORPUS HOST:PORT TOPIC SUMMARY   reads with librdkafka's Python client and checks

A line of the corpus is NUMBER TAB TEXT. Per partition the numbers must rise; over all partitions
count and sum of line hashes must be the corpus's. The summary holds a hash of each partition's
lines in order, so that two readers can be compared.
"""
import gzip
import hashlib
import os
import sys
import time

SOURCES = ["/usr/share/doc", "/usr/include", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/python3.13",
           "/usr/share/perl", "/usr/share/common-licenses", "/usr/share/info"]


def text_lines():
    """Lines of the text files that every Debian machine has, over and over."""
    while True:
        found = False
        for source in SOURCES:
            for directory, folders, files in sorted(os.walk(source)):
                folders.sort()
                for name in sorted(files):
                    for line in file_lines(os.path.join(directory, name)):
                        found = True
                        yield line
        if not found:
            raise SystemExit("real_input.py: no text on this machine")


def file_lines(path):
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            data = f.read(8 << 20)
        if b"\0" in data:
            return []
        data.decode()
    except (OSError, EOFError, UnicodeDecodeError, ValueError):
        return []
    return [line.rstrip(b"\r") for line in data.split(b"\n") if b"\r" not in line.rstrip(b"\r")]


def corpus(cache, mebibytes):
    path = os.path.join(cache, f"real-text-{mebibytes}")
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        written, limit = 0, int(mebibytes) << 20
        with open(path + ".new", "wb", 1 << 20) as out:
            for number, line in enumerate(text_lines()):
                row = b"%d\t%s\n" % (number, line)
                written += out.write(row)
                if written >= limit:
                    break
        os.rename(path + ".new", path)
    print(path)


def digest(line):
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")


class Check:
    def __init__(self):
        self.count, self.total = 0, 0
        self.last, self.hashes = {}, {}

    def line(self, partition, number, line):
        """line is NUMBER TAB TEXT NEWLINE, as in the corpus."""
        if number <= self.last.get(partition, -1):
            sys.exit(f"partition {partition}: line {number} after {self.last[partition]}")
        self.last[partition] = number
        if partition not in self.hashes:
            self.hashes[partition] = hashlib.sha256()
        self.hashes[partition].update(line)
        self.count += 1
        self.total += digest(line)

    def finish(self, corpus_path, summary):
        with open(corpus_path, "rb") as f:
            count = total = 0
            for line in f:
                count += 1
                total += digest(line)
        if self.count != count:
            sys.exit(f"{self.count} lines came back of {count}")
        if self.total != total:
            sys.exit("the lines that came back are others than those sent")
        if sorted(self.last) != list(range(8)):
            sys.exit(f"only partitions {sorted(self.last)} have lines")
        with open(summary, "w") as out:
            for partition in sorted(self.hashes):
                print(partition, self.last[partition], self.hashes[partition].hexdigest(), file=out)


def lines(corpus_path, summary):
    check = Check()
    for row in sys.stdin.buffer:
        if not row.startswith(b"Partition:"):
            continue  # the tool's own remarks
        partition, _, line = row.partition(b"\t")
        check.line(int(partition[10:]), int(line.partition(b"\t")[0]), line)
    check.finish(corpus_path, summary)


def client(corpus_path, broker, topic, summary):
    from confluent_kafka import Consumer, TopicPartition
    source = Consumer({"bootstrap.servers": broker, "group.id": "real-input", "enable.auto.commit": False,
                       "check.crcs": True, "enable.partition.eof": True, "auto.offset.reset": "earliest",
                       "fetch.queue.backoff.ms": 10})
    source.assign([TopicPartition(topic, p, 0) for p in range(8)])
    check, ended, following = Check(), set(), [0] * 8
    came = time.monotonic()
    while len(ended) < 8:
        got = source.consume(10000, 0.2)
        if got:
            came = time.monotonic()
        elif time.monotonic() - came > 30:
            sys.exit("nothing came for 30 s")
        for message in got:
            partition = message.partition()
            if message.error():
                if message.error().code() != -191:  # end of partition
                    sys.exit(str(message.error()))
                ended.add(partition)
                continue
            if message.offset() != following[partition]:
                sys.exit(f"partition {partition}: offset {message.offset()} where {following[partition]} was due")
            following[partition] += 1
            key = message.key()
            check.line(partition, int(key), key + b"\t" + (message.value() or b"") + b"\n")
    source.close()
    check.finish(corpus_path, summary)


if __name__ == "__main__":
    {"corpus": corpus, "lines": lines, "client": client}[sys.argv[1]](*sys.argv[2:])
