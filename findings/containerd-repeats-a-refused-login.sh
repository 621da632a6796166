#!/bin/sh
# containerd 2.4.2. A mirror in hosts.toml that answers 401 with a Basic challenge gets the user and password of the image's registry, and
# when it refuses them with the same challenge, gets the same ones again, four times in all for one manifest, before containerd goes
# on to the next host (core/remotes/docker/resolver.go, retryRequest). A 401 without a challenge sends it on at once. A mirror that
# cannot use a login therefore must not repeat its challenge: each repetition is a failed login at the upstream, which may lock the account.
# Seen: the requests of one `ctr content fetch` at the mirror, with a challenge and without one.
set -eu
if [ "$(id -u)" != 0 ]; then echo "containerd needs root"; exit 2; fi
folder=$(mktemp -d)
containerd_pid='' server_pid=''
cleanup() {
  for pid in $containerd_pid $server_pid; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT
export GOBIN="$folder/bin"
go install github.com/containerd/containerd/v2/cmd/containerd@v2.4.2 github.com/containerd/containerd/v2/cmd/ctr@v2.4.2

# A server that answers every request with 401, with a challenge if the file `challenge` is there, and writes down what it was asked.
cat >"$folder/server.py" <<'PY'
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with open(sys.argv[1] + '/asked', 'a') as log:
            log.write(f"{self.command} {self.path} {'login' if self.headers.get('Authorization') else 'no login'}\n")
        self.send_response(401)
        if os.path.exists(sys.argv[1] + '/challenge'):
            self.send_header('WWW-Authenticate', 'Basic realm="mirror"')
        self.send_header('Content-Length', '0')
        self.end_headers()
    do_GET = do_HEAD = answer
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 "$folder/server.py" "$folder" >"$folder/port" &
server_pid=$!
while [ ! -s "$folder/port" ]; do sleep 0.1; done
port=$(cat "$folder/port")
mkdir -p "$folder/certs.d/registry.invalid"
printf 'server = "http://127.0.0.1:9"\n[host."http://127.0.0.1:%s"]\n  capabilities = ["pull", "resolve"]\n' "$port" >"$folder/certs.d/registry.invalid/hosts.toml"

cat >"$folder/config.toml" <<TOML
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/containerd.sock"
[ttrpc]
  address = "$folder/ttrpc.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$folder/opt"
TOML
"$folder/bin/containerd" --config "$folder/config.toml" >"$folder/log" 2>&1 &
containerd_pid=$!
while [ ! -S "$folder/containerd.sock" ]; do sleep 0.1; done
sleep 1
fetch() {
  : >"$folder/asked"
  timeout 60 "$folder/bin/ctr" --address "$folder/containerd.sock" content fetch --hosts-dir "$folder/certs.d" --user alice:wrong registry.invalid/acme/app:1 >/dev/null 2>&1 || true
  echo "$1:"
  sed 's/^/  /' "$folder/asked"
  logins=$(grep -c ' login$' "$folder/asked" || true)
  others=$(grep -c 'no login$' "$folder/asked" || true)
}

touch "$folder/challenge"
fetch 'with a challenge'
repeated=$((logins - others))
rm "$folder/challenge"
fetch 'without a challenge'
times=$((logins - others))
echo "the login was sent $repeated times with a challenge, and $times times without one"
[ "$repeated" -gt 2 ] && [ "$times" -eq 0 ]
