#!/bin/bash
# Samples a running process and draws a flame graph.
#
#   flamegraphs/capture.sh PID NAME [SECONDS]
#
# Writes flamegraphs/DATE-NAME.svg and a DATE-NAME.md beside it with commit, machine and command;
# add there what the picture taught. Needs perf (Debian: linux-perf) and leave to sample others'
# processes (root, or kernel.perf_event_paranoid at most 1). Programs are built with frame pointers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 2 ] || { sed -n '2,9p' "${BASH_SOURCE[0]}" | cut -c3-; exit 2; }
pid=$1 name=$2 seconds=${3:-10}
command -v perf >/dev/null || { echo "capture.sh: perf is missing: apt-get install linux-perf" >&2; exit 1; }
kill -0 "$pid" 2>/dev/null || { echo "capture.sh: no process $pid" >&2; exit 1; }

stem=$here/$(date -I)-$name
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cpu-clock where a virtual machine has no hardware counters.
event=cycles
perf stat -e cycles -- true 2>&1 | grep -q 'not supported' && event=cpu-clock
perf record -q -e "$event" -F 499 -g -p "$pid" -o "$work/data" -- sleep "$seconds"
perf script -i "$work/data" -F comm,ip,sym 2>/dev/null >"$work/stacks"
python3 "$here/flame.py" --title "$name, $(git -C "$here" rev-parse --short=10 HEAD)" \
    "$work/stacks" "$stem.svg" "$stem.top"
{
    echo "# $name, $(date -I)"
    echo
    echo "- commit: $(git -C "$here" rev-parse --short=10 HEAD)"
    echo "- machine: $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
    echo "- process: $(basename "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -d' ' -f1)"), $seconds s, event $event"
    echo
    echo "Self time, the first twenty:"
    echo
    cat "$stem.top"
    echo
    echo "## What it taught"
} >"$stem.md"
rm -f "$stem.top"
echo "$stem.svg"
