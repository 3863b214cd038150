#!/bin/bash
# Runs fuzz programs for SECONDS each, with their corpus; ends with "fuzz: N passed, N failed".
# Usage: run.sh SECONDS PROGRAM...
set -u
seconds=$1
shift
passed=0 failed=0
here=$(dirname "$0")
for program; do
    name=$(basename "$program" _fuzz)
    corpus=$here/corpus/$name
    mkdir -p "$corpus"
    # Grows a copy: the committed corpus changes only by hand (FUZZ_KEEP=1).
    work=$(mktemp -d)
    log=$program.log
    if "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$program-" "$work" "$corpus" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "fuzz $name: $(grep -c . < <(ls "$corpus")) inputs kept," \
            "$(awk '/number_of_executed_units/ {print $2}' "$log") executions"
        if [ "${FUZZ_KEEP:-}" ]; then
            # Adds the new inputs that reach new code.
            "$program" -merge=1 "$corpus" "$work" >>"$log" 2>&1
        fi
    else
        failed=$((failed + 1))
        echo "--- fuzz $name failed; the input lies beside $program"
        tail -40 "$log"
    fi
    rm -rf "$work"
done
echo "fuzz: $passed passed, $failed failed"
[ $failed -eq 0 ]
