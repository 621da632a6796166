#!/bin/sh
# containerd 2.4.2 (the same code since 2.1). A registry folder "A:B" is documented as two folders,
# and the default of config_path since 2.2 is "/etc/containerd/certs.d:/etc/docker/certs.d". The
# transfer service, which pulls since 2.1, passes the whole value to HostDirFromRoot
# (core/transfer/registry/registry.go), which joins it with the host's name as one path: neither
# folder is read, and nothing is logged. Releases up to 2.0 split the value at colons.
# Seen: with one folder the mirror in hosts.toml is asked; with that folder and a second one it is
# not.
set -eu
STATUS=404
. "$(dirname "$0")/lib/containerd.sh"

mkdir -p "$folder/hosts/registry.invalid" "$folder/second"
printf 'server = "http://127.0.0.1:%s"\n[host."http://127.0.0.1:%s"]\n' "$port" "$port" >"$folder/hosts/registry.invalid/hosts.toml"
ctr image pull --hosts-dir "$folder/hosts" registry.invalid/library/demo:1 >/dev/null 2>&1 || true
one=$(requests)
ctr image pull --hosts-dir "$folder/hosts:$folder/second" registry.invalid/library/demo:1 >/dev/null 2>&1 || true
two=$(($(requests) - one))
echo "one folder: the mirror was asked $one times; two folders: $two times"
[ "$one" -gt 0 ] && [ "$two" -eq 0 ]
