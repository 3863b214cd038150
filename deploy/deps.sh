#!/bin/bash
# Installs the Debian packages of the given groups that are missing; see packages.txt.
# Does nothing, and asks for nothing, when all are there.
#   deps.sh [--check] GROUP...       --check only tells what is missing, with status 1
set -euo pipefail
list="$(dirname "$0")/packages.txt"
check=false
if [ "${1:-}" = --check ]; then check=true; shift; fi

# A package, or a program that came from elsewhere.
installed() {
    if [[ $1 == command:* ]]; then command -v "${1#command:}" >/dev/null; return; fi
    [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | head -1)" = installed ]
}
known() { [ -n "$(apt-cache policy "$1" 2>/dev/null | grep 'Candidate:' | grep -v '(none)')" ]; }

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "deps: this is no Debian system; install the equivalents of these by hand:" >&2
    grep -v '^#' "$list" | awk 'NF == 2 { print "  " $2 }' >&2
    exit 1
fi

missing=()
while read -r group choice; do
    [[ " $* " == *" $group "* ]] || continue
    found=false
    for name in ${choice//|/ }; do
        if installed "$name"; then found=true; break; fi
    done
    $found || missing+=("$choice")
done < <(grep -v '^#' "$list" | awk 'NF == 2')

[ ${#missing[@]} -eq 0 ] && exit 0
if $check; then
    echo "missing packages: ${missing[*]}" >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: these packages are missing, and there is neither root nor sudo to install them:" >&2
        echo "  apt-get install ${missing[*]##*|}" >&2
        echo "Ask an administrator to run this line, then try again." >&2
        exit 1
    fi
    as_root=(sudo)
fi

"${as_root[@]}" apt-get update -qq

# The first alternative that this release has.
names=()
for choice in "${missing[@]}"; do
    pick=${choice##*|}
    for name in ${choice//|/ }; do
        if known "$name"; then pick=$name; break; fi
    done
    names+=("$pick")
done

echo "deps: installing ${names[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${names[@]}"
