# Sourced by the findings about kube-apiserver, which set VERSION first. Builds it, and
# starts it over Debian's etcd, in a temporary folder that is removed at the end. `api METHOD PATH`
# sends its stdin as an admin, and prints the response.
command -v etcd >/dev/null || { echo "etcd is missing: apt-get install etcd-server"; exit 2; }
folder=$(mktemp -d)
etcd_pid='' server_pid=''
cleanup() {
  for pid in $server_pid $etcd_pid; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT

# component NAME CONSTRUCTOR: builds a program of Kubernetes into the folder.
component() {
  mkdir "$folder/source-$1"
  cat >"$folder/source-$1/main.go" <<GO
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/$1/app"
)

func main() { os.Exit(cli.Run(app.$2())) }
GO
  (
    cd "$folder/source-$1"
    export GOFLAGS="-mod=mod -trimpath -buildvcs=false" CGO_ENABLED=0
    go mod init finding >/dev/null 2>&1
    listed=$(go mod download -json "k8s.io/kubernetes@v$VERSION" | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
    go mod edit -require "k8s.io/kubernetes@v$VERSION"
    for module in $(sed -n 's#^[[:space:]]*\(k8s.io/[a-z0-9.-]*\) => ./staging.*#\1#p' "$listed/go.mod"); do
      go mod edit -replace "$module=$module@v0.${VERSION#1.}"
    done
    go build -o "$folder/$1" . 2>/dev/null || go build -o "$folder/$1" .
  )
}
component kube-apiserver NewAPIServerCommand

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
etcd_port=$(free_port) peer_port=$(free_port) port=$(free_port)
etcd --data-dir "$folder/etcd" --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$etcd_port" \
  --advertise-client-urls "http://127.0.0.1:$etcd_port" --listen-peer-urls "http://127.0.0.1:$peer_port" \
  --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" --initial-cluster "default=http://127.0.0.1:$peer_port" \
  >"$folder/etcd.log" 2>&1 &
etcd_pid=$!
openssl genrsa -out "$folder/accounts.key" 2048 2>/dev/null
openssl rsa -in "$folder/accounts.key" -pubout -out "$folder/accounts.pub" 2>/dev/null
echo 'admin-token,admin,admin,"system:masters"' >"$folder/users.csv"
"$folder/kube-apiserver" --bind-address=127.0.0.1 --secure-port="$port" --cert-dir="$folder/certificates" \
  --etcd-servers="http://127.0.0.1:$etcd_port" --service-cluster-ip-range=10.96.0.0/16 --advertise-address=10.96.0.1 \
  --endpoint-reconciler-type=none --authorization-mode=RBAC --token-auth-file="$folder/users.csv" \
  --disable-admission-plugins=ServiceAccount,Priority --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file="$folder/accounts.pub" --service-account-signing-key-file="$folder/accounts.key" \
  >"$folder/kube-apiserver.log" 2>&1 &
server_pid=$!
request() { curl -sk -H 'Authorization: Bearer admin-token' -H 'Content-Type: application/json' "$@"; }
api() { request -X "$1" --data-binary @- "https://127.0.0.1:$port$2"; }
for _ in $(seq 600); do
  [ "$(request "https://127.0.0.1:$port/readyz")" = ok ] && break
  sleep 0.2
done
# The namespace may be created a moment later.
for _ in $(seq 100); do
  [ "$(request -o /dev/null -w '%{http_code}' "https://127.0.0.1:$port/api/v1/namespaces/default")" = 200 ] && break
  sleep 0.2
done

# policy NAME FAILURE_POLICY MATCH_CONDITION MUTATION...: replaces a MutatingAdmissionPolicy for
# pods, and its binding. Each mutation is a CEL expression that returns a JSON Patch.
group=/apis/admissionregistration.k8s.io/v1
policy() {
  python3 - "$@" >"$folder/policy.json" <<'PY'
import json, sys
name, failure_policy, condition, *mutations = sys.argv[1:]
rule = {'apiGroups': [''], 'apiVersions': ['v1'], 'operations': ['CREATE'], 'resources': ['pods']}
print(json.dumps({
    'apiVersion': 'admissionregistration.k8s.io/v1', 'kind': 'MutatingAdmissionPolicy', 'metadata': {'name': name},
    'spec': {
        'failurePolicy': failure_policy, 'reinvocationPolicy': 'IfNeeded', 'matchConstraints': {'resourceRules': [rule]},
        'matchConditions': [{'name': 'condition', 'expression': condition}],
        'mutations': [{'patchType': 'JSONPatch', 'jsonPatch': {'expression': mutation}} for mutation in mutations]}}))
PY
  for kind in mutatingadmissionpolicies mutatingadmissionpolicybindings; do api DELETE "$group/$kind/$1" </dev/null >/dev/null; done
  api POST "$group/mutatingadmissionpolicies" <"$folder/policy.json" >"$folder/answer"
  grep -q '"uid"' "$folder/answer" || { cat "$folder/answer"; exit 2; }
  echo '{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicyBinding","metadata":{"name":"'"$1"'"},"spec":{"policyName":"'"$1"'"}}' |
    api POST "$group/mutatingadmissionpolicybindings" >/dev/null
  sleep 3 # until it is in use
}

# label NAME: creates a pod with the label a=b, and prints the value of its label NAME.
label() {
  echo '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pod","labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"nginx"}]}}' |
    api POST '/api/v1/namespaces/default/pods?dryRun=All' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["metadata"]["labels"].get(sys.argv[1], "none"))' "$1"
}
