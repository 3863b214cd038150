#!/bin/bash
# librdkafka through kcat: kcat.sh HOST:PORT CASE
set -euo pipefail
broker=$1 test=$2
work=${E2E_TMP:?}
topic=kcat-$test-$$-$RANDOM
die() { echo "kcat.sh: $*" >&2; exit 1; }
produce() { kcat -b "$broker" -P -X message.timeout.ms=30000 "$@"; }
consume() { timeout 60 kcat -b "$broker" -C -q -o beginning -e -X check.crcs=true "$@"; }
lines() { seq -f "%.0f the quick brown fox jumps over the lazy dog" "$1" "$2"; }

# Every codec, one after the other into one partition: same lines, same order, contiguous offsets.
codecs() {
    local codec n=0
    : >"$work/sent"
    for codec in none gzip snappy lz4 zstd; do
        lines $((n + 1)) $((n + 5000)) >"$work/part"
        cat "$work/part" >>"$work/sent"
        produce -t "$topic" -p 0 -z $codec -X acks=all -l "$work/part"
        n=$((n + 5000))
    done
    consume -t "$topic" -p 0 >"$work/got"
    cmp "$work/sent" "$work/got" || die "the lines read differ from those sent"
    consume -t "$topic" -p 0 -f '%o\n' >"$work/offsets"
    seq 0 $((n - 1)) | cmp - "$work/offsets" || die "offsets are not contiguous"
    # acks=1 and acks=0, and the idempotent producer.
    lines 1 1000 >"$work/part"
    produce -t "$topic" -p 0 -X acks=1 -l "$work/part"
    produce -t "$topic" -p 0 -X enable.idempotence=true -l "$work/part"
    [ "$(consume -t "$topic" -p 0 -o 25000 | cat "$work/part" "$work/part" - | sort | uniq -c |
        awk '$1 != 4' | wc -l)" = 0 ] || die "acks=1 or idempotent records differ"
}

# Keys, headers, nulls, empty values, a large record.
shapes() {
    printf 'k1:v1\nk2:\n:v3\n' | produce -t "$topic" -p 0 -K: -H color=red -H "empty="
    printf 'gone:\n' | produce -t "$topic" -p 0 -K: -Z
    head -c 691200 /dev/urandom | base64 -w0 >"$work/large"
    produce -t "$topic" -p 0 -k large "$work/large" -X message.max.bytes=1000000
    consume -t "$topic" -p 0 -c 4 -f '%o|%k|%K|%s|%S|%h\n' >"$work/got"
    cat >"$work/wanted" <<TEXT
0|k1|2|v1|2|color=red,empty=
1|k2|2||0|color=red,empty=
2||0|v3|2|color=red,empty=
3|gone|4||-1|
TEXT
    diff "$work/wanted" "$work/got" || die "keys, values or headers differ"
    consume -t "$topic" -p 0 -o 4 -D '' >"$work/got"
    cmp "$work/large" "$work/got" || die "the large record differs"
}

metadata_offsets() {
    local before middle after
    lines 1 10 | produce -t "$topic" -p 0
    sleep 1.1
    middle=$(date +%s%3N)
    sleep 0.1
    lines 11 20 | produce -t "$topic" -p 0
    kcat -b "$broker" -L -t "$topic" >"$work/meta"
    grep -q "topic \"$topic\" with 1 partitions" "$work/meta" || die "metadata: $(cat "$work/meta")"
    kcat -b "$broker" -L -J -t "$topic" | grep -q '"partition":0' || die "metadata as JSON"
    for before in -2:0 -1:20 "$middle:10"; do
        after=$(kcat -b "$broker" -Q -t "$topic:0:${before%:*}" | tr -d '\r')
        [ "$after" = "$topic [0] offset ${before#*:}" ] || die "offset of ${before%:*}: $after"
    done
    [ "$(consume -t "$topic" -p 0 -o s@"$middle" | head -1 | cut -d' ' -f1)" = 11 ] || die "consuming from a time"
    [ "$(consume -t "$topic" -p 0 -o -3 | wc -l)" = 3 ] || die "consuming the last three"
}

# Two members share the partitions; each line is seen once; the second run resumes after the first.
group() {
    local first second
    lines 1 100 | produce -t "$topic" # created with the broker's default of partitions
    group_member >"$work/one" 2>"$work/one.log" & first=$!
    sleep 4
    lines 101 2000 | produce -t "$topic"
    group_member >"$work/two" 2>"$work/two.log" & second=$!
    sleep 6
    lines 2001 3000 | produce -t "$topic"
    sleep 3
    kill -TERM $first; wait $first || true
    sleep 2
    lines 3001 4000 | produce -t "$topic"
    for _ in $(seq 150); do
        [ "$(cat "$work/one" "$work/two" | sort -u | wc -l)" -ge 4000 ] && break
        sleep 0.1
    done
    kill -TERM $second; wait $second || true
    sort -n -u "$work/one" "$work/two" | cut -d' ' -f1 | cmp - <(seq 4000) || die "lines are missing"
    # Committed: a third run sees only what is new.
    lines 4001 4010 | produce -t "$topic"
    timeout 30 kcat -b "$broker" -q -G "$topic-group" -X auto.offset.reset=earliest -c 10 "$topic" >"$work/three" ||
        die "the third run did not get its ten lines"
    [ "$(cut -d' ' -f1 "$work/three" | sort -n | head -1)" = 4001 ] || die "the third run did not resume"
}
group_member() {
    exec kcat -b "$broker" -q -u -G "$topic-group" -X auto.offset.reset=earliest \
        -X auto.commit.interval.ms=200 -X session.timeout.ms=6000 "$topic"
}

case $test in
codecs | shapes | metadata_offsets | group) $test ;;
*) die "unknown case $test" ;;
esac
