#!/bin/sh
# containerd 2.4.2. A registry that answers 429 with Retry-After: 30 is asked for the same manifest again at once, several times, within
# a second or so; Retry-After is not read (core/remotes/docker/resolver.go, retryRequest). A cache that passes each request on
# therefore multiplies what its upstream has just asked it to reduce.
# Seen: the requests for one `ctr content fetch`, and the seconds they took.
set -eu
STATUS=429
. "$(dirname "$0")/lib/containerd.sh"

started=$(date +%s)
ctr content fetch --plain-http "127.0.0.1:$port/library/demo:1" >/dev/null 2>&1 || true
took=$(($(date +%s) - started))
echo "one fetch: $(requests) requests within $took s"
cat "$folder/asked"
[ "$(requests)" -gt 2 ] && [ "$took" -lt 25 ]
