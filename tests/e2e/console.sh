#!/bin/bash
# Apache Kafka's command-line tools on real text: console.sh HOST:PORT CASE
set -euo pipefail
broker=$1 test=$2
work=${E2E_TMP:?}
bin=${KAFKA_BIN:?}
topic=console-$test-$$-$RANDOM
export KAFKA_HEAP_OPTS=-Xmx256m KAFKA_OPTS=-Dfile.encoding=UTF-8
die() { echo "console.sh: $*" >&2; exit 1; }
run() { local tool=$1; shift; "$bin/$tool" --bootstrap-server "$broker" "$@"; }
# has FILE PATTERN: the output has such a line
has() { grep -Eq -- "$2" "$1" || die "no '$2' in: $(cat "$1")"; }
classic=(--command-property group.protocol=classic)
# What the tool says about newer protocols on its standard output.
quiet() { grep -v "^The consumer rebalance protocol (KIP-848)" || true; }

# Lines of real text, valid UTF-8 throughout: documentation that every Debian has.
real_text() {
    cat /usr/share/common-licenses/* /usr/share/doc/*/copyright 2>/dev/null |
        iconv -f UTF-8 -t UTF-8 -c | tr -d '\r' | head -n "$1" || true
}

text() {
    real_text 20000 >"$work/sent"
    [ "$(wc -l <"$work/sent")" -gt 1000 ] || die "too little text on this machine"
    local lines; lines=$(wc -l <"$work/sent")
    run kafka-topics --create --topic "$topic" --partitions 1 >/dev/null
    run kafka-console-producer --topic "$topic" --compression-codec zstd <"$work/sent"
    run kafka-console-consumer --topic "$topic" --from-beginning --max-messages "$lines" --timeout-ms 60000 \
        "${classic[@]}" | quiet >"$work/got"
    cmp "$work/sent" "$work/got" || die "the text read differs from the text sent"
    # Keys and headers, printed as the tools print them.
    printf 'h1:a\tk1\tv1\nh1:b\tk2\tv2\n' | run kafka-console-producer --topic "$topic" \
        --reader-property parse.key=true --reader-property parse.headers=true
    run kafka-console-consumer --topic "$topic" --partition 0 --offset "$lines" --max-messages 2 --timeout-ms 60000 \
        --formatter-property print.key=true --formatter-property print.headers=true --formatter-property print.offset=true \
        --formatter-property print.partition=true "${classic[@]}" | quiet >"$work/got"
    printf 'Partition:0\tOffset:%d\th1:a\tk1\tv1\nPartition:0\tOffset:%d\th1:b\tk2\tv2\n' "$lines" $((lines + 1)) |
        diff - "$work/got" || die "keys and headers differ"
}

topics() {
    run kafka-topics --create --topic "$topic" --partitions 3 --replication-factor 1 \
        --config retention.ms=1000000 >"$work/out"
    has "$work/out" "Created topic $topic"
    run kafka-topics --list >"$work/out"
    has "$work/out" "^$topic$"
    run kafka-topics --alter --topic "$topic" --partitions 5
    run kafka-topics --describe --topic "$topic" >"$work/out"
    has "$work/out" "PartitionCount: 5.*retention.ms=1000000"
    has "$work/out" "Partition: 4"
    if run kafka-topics --create --topic "$topic" >"$work/out" 2>&1; then die "created twice"; fi
    has "$work/out" "already exists"
    run kafka-topics --delete --topic "$topic"
    sleep 1
    run kafka-topics --list >"$work/out"
    if grep -q "^$topic$" "$work/out"; then die "still listed after its deletion"; fi
    run kafka-broker-api-versions >"$work/out"
    has "$work/out" "Produce\(0\): 0 to 13"
    has "$work/out" "Fetch\(1\): 4 to 18"
    run kafka-log-dirs --describe >"$work/out"
    has "$work/out" '"logDirs"'
}

groups() {
    run kafka-topics --create --topic "$topic" --partitions 2 >/dev/null
    real_text 1000 | run kafka-console-producer --topic "$topic"
    run kafka-console-consumer --topic "$topic" --group "$topic" --from-beginning --max-messages 1000 \
        --timeout-ms 60000 "${classic[@]}" | quiet >"$work/got"
    [ "$(wc -l <"$work/got")" = 1000 ] || die "the group read $(wc -l <"$work/got") lines"
    run kafka-consumer-groups --list >"$work/out"
    has "$work/out" "^$topic$"
    run kafka-consumer-groups --describe --group "$topic" >"$work/out" 2>&1
    [ "$(awk -v t="$topic" '$2 == t { lag += $6; end += $5 } END { print lag + 0, end }' "$work/out")" = "0 1000" ] ||
        die "lag is not 0 of 1000: $(cat "$work/out")"
    run kafka-consumer-groups --describe --group "$topic" --state >"$work/out" 2>&1
    has "$work/out" "Empty"
    run kafka-consumer-groups --reset-offsets --group "$topic" --topic "$topic" --to-earliest --execute >/dev/null
    run kafka-consumer-groups --describe --group "$topic" >"$work/out" 2>&1
    [ "$(awk -v t="$topic" '$2 == t { lag += $6 } END { print lag }' "$work/out")" = 1000 ] ||
        die "lag is not 1000 after a reset: $(cat "$work/out")"
    run kafka-consumer-groups --delete-offsets --group "$topic" --topic "$topic:0" >"$work/out" 2>&1
    has "$work/out" "Successful"
    run kafka-consumer-groups --delete --group "$topic" >"$work/out" 2>&1
    has "$work/out" "was successful"
    run kafka-groups --list >"$work/out"
    if grep -q "^$topic " "$work/out"; then die "still listed after its deletion"; fi
}

configs() {
    run kafka-topics --create --topic "$topic" >/dev/null
    run kafka-configs --alter --topic "$topic" --add-config retention.ms=5000000,cleanup.policy=[compact,delete] >/dev/null
    run kafka-configs --describe --topic "$topic" >"$work/out"
    has "$work/out" "retention.ms=5000000"
    has "$work/out" "cleanup.policy=compact,delete"
    run kafka-configs --alter --topic "$topic" --delete-config retention.ms >/dev/null
    run kafka-configs --describe --topic "$topic" --all >"$work/out"
    has "$work/out" "retention.ms=.*DEFAULT"
    local id throttle=leader.replication.throttled.rate
    id=$(kcat -b "$broker" -L | sed -n 's/^ *broker \([0-9]*\) at.*/\1/p' | head -1)
    run kafka-configs --describe --entity-type brokers --entity-name "$id" --all >"$work/out"
    has "$work/out" "message.max.bytes="
    run kafka-configs --alter --entity-type brokers --entity-name "$id" --add-config $throttle=1000000,num.io.threads=9 >/dev/null
    run kafka-configs --describe --entity-type brokers --entity-name "$id" >"$work/out"
    has "$work/out" "$throttle=1000000 sensitive=false .*DYNAMIC_BROKER_CONFIG"
    has "$work/out" "num.io.threads=9 sensitive=false .*DYNAMIC_BROKER_CONFIG"
    run kafka-configs --alter --entity-type brokers --entity-name "$id" --delete-config $throttle,num.io.threads >/dev/null
    if run kafka-configs --alter --entity-type brokers --entity-name "$id" --add-config num.partitions=3 >"$work/out" 2>&1; then
        die "a config that needs a restart was taken"
    fi
    if run kafka-configs --alter --topic "$topic" --add-config no.such=1 >"$work/out" 2>&1; then
        die "an unknown config was taken"
    fi
    run kafka-configs --alter --entity-type brokers --entity-default --add-config log.roll.ms=604800001 >/dev/null
    run kafka-configs --describe --entity-type brokers --entity-default >"$work/out"
    has "$work/out" "log.roll.ms=604800001 .*DYNAMIC_DEFAULT_BROKER_CONFIG"
    run kafka-configs --alter --entity-type brokers --entity-default --delete-config log.roll.ms >/dev/null
    run kafka-configs --alter --entity-type groups --entity-name "$topic" --add-config consumer.session.timeout.ms=50000 >/dev/null
    run kafka-configs --describe --entity-type groups >"$work/out" # of all that there are
    has "$work/out" "consumer.session.timeout.ms=50000 .*DYNAMIC_GROUP_CONFIG"
}

records() {
    run kafka-topics --create --topic "$topic" --partitions 1 >/dev/null
    real_text 500 | run kafka-console-producer --topic "$topic"
    run kafka-get-offsets --topic "$topic" >"$work/out"
    has "$work/out" "^$topic:0:500$"
    run kafka-get-offsets --topic "$topic" --time earliest >"$work/out"
    has "$work/out" "^$topic:0:0$"
    run kafka-get-offsets --topic "$topic" --time max-timestamp >"$work/out"
    has "$work/out" "^$topic:0:[0-9]+$"
    echo "{\"version\":1,\"partitions\":[{\"topic\":\"$topic\",\"partition\":0,\"offset\":123}]}" >"$work/delete.json"
    run kafka-delete-records --offset-json-file "$work/delete.json" >"$work/out"
    has "$work/out" "low_watermark: 123"
    run kafka-get-offsets --topic "$topic" --time earliest >"$work/out"
    has "$work/out" "^$topic:0:123$"
    run kafka-log-dirs --describe --topic-list "$topic" >"$work/out"
    has "$work/out" "\"partition\":\"$topic-0\",\"size\":[0-9]+"
    "$bin/kafka-cluster" cluster-id --bootstrap-server "$broker" >"$work/out"
    has "$work/out" "Cluster ID: ."
    run kafka-transactions describe-producers --topic "$topic" --partition 0 >"$work/out"
    has "$work/out" "ProducerId"
}

perf() {
    run kafka-topics --create --topic "$topic" --partitions 4 >/dev/null
    run kafka-producer-perf-test --topic "$topic" --num-records 100000 --record-size 500 --throughput -1 \
        --command-property acks=all >"$work/out" 2>&1 || die "$(cat "$work/out")"
    has "$work/out" "100000 records sent"
    run kafka-consumer-perf-test --topic "$topic" --num-records 100000 --timeout 60000 >"$work/out" 2>&1 ||
        die "$(cat "$work/out")"
    has "$work/out" ", 100000,"
    run kafka-e2e-latency --topic "$topic" --num-records 200 --producer-acks 1 --record-size 100 >"$work/out" 2>&1 ||
        die "$(cat "$work/out")"
    has "$work/out" "Percentiles"
}

case $test in
text | topics | groups | configs | records | perf) $test ;;
*) die "unknown case $test" ;;
esac
