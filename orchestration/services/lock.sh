#!/usr/bin/env bash
# Writes jars.lock anew: resolves the versions below with Maven, and takes the checksums of what it downloaded.
# To be run by who raises a version; it needs `mvn`. What changed is to be reviewed in the diff.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

section() { # section NAME group:artifact:version…
    local name=$1 jar path coordinates group artifact version
    shift
    {
        echo '<project><modelVersion>4.0.0</modelVersion><groupId>footfall</groupId><artifactId>lock</artifactId><version>1</version><dependencies>'
        for coordinates in "$@"; do
            IFS=: read -r group artifact version <<<"$coordinates"
            echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
        done
        echo '</dependencies></project>'
    } >"$work/pom.xml"
    (cd "$work" && mvn --batch-mode --quiet dependency:copy-dependencies -DincludeScope=runtime \
        -Dmdep.useRepositoryLayout=true -DoutputDirectory="$work/$name" >&2)
    echo
    echo "[$name]"
    (cd "$work/$name" && find . -name '*.jar' | LC_ALL=C sort | while read -r jar; do
        path=${jar#./} jar=${jar##*/}
        path=${path%/*} version=${path##*/}
        path=${path%/*} artifact=${path##*/}
        path=${path%/*} group=${path//\//.}
        path=${jar#"$artifact-$version"} path=${path%.jar} # the classifier, with a dash before it
        echo "$group:$artifact:$version${path:+:${path#-}} $(sha256sum <"${group//.//}/$artifact/$version/$jar" | cut -d' ' -f1)"
    done)
}

{
    echo "# The jars of each service: group:artifact:version[:classifier], and the SHA-256 of the file. Made by lock.sh."
    section kafka org.apache.kafka:kafka_2.13:4.4.0 org.slf4j:slf4j-simple:1.7.36
    section cassandra org.apache.cassandra:cassandra-all:5.0.9
} >"$work/jars.lock"
mv "$work/jars.lock" "$here/jars.lock"
