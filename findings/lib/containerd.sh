# Sourced by the findings about containerd 2.4.2, which set STATUS first. Installs containerd and
# starts it next to a registry that answers every request with STATUS, both in a temporary folder
# that is removed at the end. While the file $folder/challenge exists, its content is sent as
# WWW-Authenticate. Sets folder, and port (the registry's). `ctr` runs containerd's client.
# `requests` prints the number of requests to the registry so far; $folder/asked lists them, marked
# "with a login" if they had one.
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

cat >"$folder/server.py" <<'PY'
import http.server, os, sys
folder, status = sys.argv[1], int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with open(f'{folder}/asked', 'a') as log:
            log.write(f"{self.command} {self.path}{' with a login' if self.headers.get('Authorization') else ''}\n")
        self.send_response(status)
        self.send_header('Retry-After', '30')
        if os.path.exists(f'{folder}/challenge'):
            with open(f'{folder}/challenge') as challenge:
                self.send_header('WWW-Authenticate', challenge.read().strip())
        self.send_header('Content-Length', '0')
        self.end_headers()
    do_GET = do_HEAD = answer
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
: >"$folder/asked"
python3 "$folder/server.py" "$folder" "$STATUS" >"$folder/port" &
server_pid=$!
while [ ! -s "$folder/port" ]; do sleep 0.1; done
port=$(cat "$folder/port")

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
ctr() { timeout 60 "$folder/bin/ctr" --address "$folder/containerd.sock" "$@"; }
requests() { grep -c . "$folder/asked" || true; }
