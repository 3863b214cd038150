#!/bin/bash
# Each program must fail on its planted defect, the n-th on the n-th, within SECONDS.
# Usage: canaries.sh SECONDS PROGRAM...
set -u
seconds=$1 plant=1
shift
missed=0
here=$(dirname "$0")
for program; do
    name=$(basename "$program" _fuzz)
    work=$(mktemp -d)
    start=$SECONDS
    if LEAT_CANARY=$plant "$program" -seed=1 -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="$work/" "$work" "$here/corpus/$name" >"$program-canary.log" 2>&1; then
        missed=$((missed + 1))
        echo "canary $name: NOT FOUND in $seconds s"
    else
        what=$(grep -m1 -o 'check="[^"]*"\|ERROR: [^(]*\|VIOLATED.*\|runtime error.*' "$program-canary.log")
        echo "canary $name: found after $((SECONDS - start)) s: ${what:0:100}"
    fi
    plant=$((plant + 1))
    rm -rf "$work"
done
echo "fuzz canaries: $missed not found"
[ $missed -eq 0 ]
