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

# The first alternative that this release has, of each choice.
names_of() {
    local choice name pick
    for choice; do
        pick=${choice##*|}
        for name in ${choice//|/ }; do
            if known "$name"; then pick=$name; break; fi
        done
        echo "$pick"
    done
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    if $check; then exit 0; fi # nobody to ask
    echo "deps: this is no Debian system; install the equivalents of these by hand:" >&2
    grep -v '^#' "$list" | awk -v groups=" $* " 'NF == 2 && index(groups, " " $1 " ") { print "  " $2 }' >&2
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
    echo "deps: these packages are missing; \`make deps-build\` installs them (as root or with sudo):" >&2
    echo "  ${missing[*]}" >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        mapfile -t names < <(names_of "${missing[@]}")
        echo "deps: packages are missing, and there is neither root nor sudo to install them." >&2
        echo "Ask an administrator to run this, then try again:" >&2
        echo "  apt-get install --no-install-recommends ${names[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
    echo "deps: ${#missing[@]} packages are missing; installing them with sudo" >&2
    sudo true || { echo "deps: sudo refuses; run \`make deps\` as root once, then try again" >&2; exit 1; }
fi

# Hundreds of lines that nobody reads, unless it fails.
log=$(mktemp -t leat-deps.XXXXXX)
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o Dpkg::Use-Pty=0 "$@" \
        >>"$log" 2>&1 </dev/null
}
# A source of somebody else that is out of order need not matter: installing shows it.
apt update || { tail -3 "$log"; echo "deps: apt-get update failed, going on with what is known"; } >&2
mapfile -t names < <(names_of "${missing[@]}")
echo "deps: installing ${names[*]}"
if ! apt install --no-install-recommends "${names[@]}"; then
    tail -15 "$log" >&2
    echo "deps: apt-get install failed, its whole output is in $log" >&2
    echo "Mend what it names (network, /etc/apt/sources.list, disk), then try again." >&2
    exit 1
fi
rm -f "$log"
