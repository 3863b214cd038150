#!/bin/bash
# Runs unit-test programs (cmocka), prints what failed in full, ends with "N passed, N failed".
set -u
passed=0 failed=0
for t; do
    out=$("$t" 2>&1); rc=$?
    p=$(grep -c '^\[       OK' <<<"$out"); f=$(grep -E '^\[  FAILED  \] [A-Za-z_0-9]+$' <<<"$out" | sort -u | wc -l)
    if [ $rc -ne 0 ]; then
        echo "--- $t (status $rc)"; echo "$out"
        [ "$f" -eq 0 ] && f=1
    fi
    passed=$((passed + p)) failed=$((failed + f))
done
echo "unit: $passed passed, $failed failed"
[ $failed -eq 0 ]
