#!/bin/sh
# containerd 2.4.2. If a registry answers 429 with Retry-After: 30, containerd requests the same
# manifest again at once, several times within about a second; it ignores Retry-After
# (core/remotes/docker/resolver.go, retryRequest). A cache that passes on each request therefore
# multiplies the requests that its upstream has just asked it to reduce.
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
