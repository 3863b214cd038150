#!/bin/bash
# Real text through kcat into 8 partitions, once with each codec, and back through Kafka's console
# consumer and a Python client: the same lines, as many, each partition in the order of sending.
#
#   real_input.sh [--broker leat|kafka|HOST:PORT] [--full] [--size MIB] [--codecs "none gzip ..."]
#
# 64 MiB for each codec; --full takes 1 GiB. Each line's key is its number, which is how order shows.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${LEAT_CACHE:-$HOME/.cache/leat}
broker=leat size=64 codecs="none gzip snappy lz4 zstd"
while [ $# -gt 0 ]; do
    case $1 in
    --broker) broker=$2; shift 2 ;;
    --full) size=1024; shift ;;
    --size) size=$2; shift 2 ;;
    --codecs) codecs=$2; shift 2 ;;
    *) echo "real_input.sh: unknown argument $1" >&2; exit 2 ;;
    esac
done

case $broker in
leat | kafka)
    # Comes back here with the address of a broker that lives as long as this run.
    exec python3 "$here/with_broker.py" "$broker" bash "$0" --size "$size" --codecs "$codecs" --broker ADDRESS
    ;;
esac

passed=0 failed=0
count() { # count NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    if "$@"; then
        passed=$((passed + 1)); echo "passed  $name  $((SECONDS - start)) s"
    else
        failed=$((failed + 1)); echo "FAILED  $name  $((SECONDS - start)) s"
    fi
}

set_up() { PYTHONPATH="$here" python3 -c "import harness; print(harness.$1())"; }
bin=$(set_up install_kafka) || { echo "real_input: 0 passed, 1 failed"; exit 1; }
python=$(set_up install_python) || { echo "real_input: 0 passed, 1 failed"; exit 1; }
set_up install_kcat >/dev/null || { echo "real_input: 0 passed, 1 failed"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=$(python3 "$here/real_input.py" corpus "$cache" "$size")
lines=$(wc -l <"$corpus")
echo "real_input: $lines lines, $(stat -c %s "$corpus") bytes for each codec"

send() {
    kcat -b "$broker" -P -t "$1" -K $'\t' -z "$2" -X topic.partitioner=murmur2_random -X acks=all \
        -X linger.ms=20 -X queue.buffering.max.messages=1000000 -X message.timeout.ms=120000 <"$corpus"
}
console() {
    KAFKA_HEAP_OPTS=-Xmx512m KAFKA_OPTS="-Dfile.encoding=UTF-8 -XX:TieredStopAtLevel=4" \
        "$bin/kafka-console-consumer" --bootstrap-server "$broker" --topic "$1" --from-beginning \
        --max-messages "$lines" --timeout-ms 60000 --command-property group.protocol=classic \
        --formatter-property print.partition=true --formatter-property print.key=true \
        2>"$work/console.log" | python3 "$here/real_input.py" lines "$corpus" "$work/$1.console" ||
        { tail -5 "$work/console.log"; return 1; }
}
client() { "$python" "$here/real_input.py" client "$corpus" "$broker" "$1" "$work/$1.client"; }
same() { cmp "$work/$1.console" "$work/$1.client"; }

for codec in $codecs; do
    topic=real-$codec-$$-$RANDOM
    "$bin/kafka-topics" --bootstrap-server "$broker" --create --topic "$topic" --partitions 8 >/dev/null
    count "send-$codec" send "$topic" "$codec"
    count "console-consumer-$codec" console "$topic"
    count "python-client-$codec" client "$topic"
    count "partitions-agree-$codec" same "$topic"
    "$bin/kafka-topics" --bootstrap-server "$broker" --delete --topic "$topic" >/dev/null
done
echo "real_input: $passed passed, $failed failed"
[ $failed = 0 ]
