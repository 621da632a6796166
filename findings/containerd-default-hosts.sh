#!/bin/sh
# containerd 2.4.2 (1.6 to 2.4 alike). `_default/hosts.toml` is meant for registries without a
# folder of their own. It applies to 127.0.0.1:PORT and localhost too (hostPaths in
# core/remotes/docker/config/config_unix.go), so an image of a registry on this machine is requested
# from that mirror, and with a `server` line never from the registry itself.
# Seen: a pull of 127.0.0.1:1/library/demo asks the mirror of _default; with 127.0.0.1_1_/hosts.toml
# it no longer does.
set -eu
STATUS=404
. "$(dirname "$0")/lib/containerd.sh"

mkdir -p "$folder/hosts/_default"
printf 'server = "http://127.0.0.1:%s"\n[host."http://127.0.0.1:%s"]\n' "$port" "$port" >"$folder/hosts/_default/hosts.toml"
ctr content fetch --hosts-dir "$folder/hosts" 127.0.0.1:1/library/demo:1 >/dev/null 2>&1 || true
with=$(requests)
mkdir "$folder/hosts/127.0.0.1_1_"
printf 'server = "http://127.0.0.1:1"\n' >"$folder/hosts/127.0.0.1_1_/hosts.toml"
ctr content fetch --hosts-dir "$folder/hosts" 127.0.0.1:1/library/demo:1 >/dev/null 2>&1 || true
own=$(($(requests) - with))
echo "_default alone: its mirror was asked $with times for 127.0.0.1:1; with a folder for that address: $own times"
[ "$with" -gt 0 ] && [ "$own" -eq 0 ]
