#!/bin/bash
# maven.sh DIR group:artifact:version...: the artifacts and all they need at run time, into DIR. Nothing
# is done when DIR is complete.
set -euo pipefail

say() { printf '%s\n' "maven.sh: $*" >&2; }

[ $# -ge 2 ] || { say "which DIR, which group:artifact:version?"; exit 1; }
target=$1
shift
[ -e "$target/.complete" ] && exit 0
command -v mvn >/dev/null || { say "Maven is missing: apt-get install maven"; exit 1; }
say "fetching $* into $target"
pom=$(mktemp -d)
trap 'rm -rf "$pom"' EXIT
{
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>leat</groupId>'
    echo '<artifactId>peer</artifactId><version>1</version><packaging>pom</packaging><dependencies>'
    for artifact; do
        IFS=: read -r group id release <<<"$artifact"
        printf '<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n' \
            "$group" "$id" "$release"
    done
    echo '</dependencies></project>'
} >"$pom/pom.xml"
rm -rf "$target"
mvn -q -B -f "$pom/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$target" >&2 ||
    { rm -rf "$target"; say "could not fetch $*"; exit 1; }
touch "$target/.complete"
