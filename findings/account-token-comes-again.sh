#!/bin/sh
# kube-apiserver and kube-controller-manager 1.34.4. The token in a Secret of type
# kubernetes.io/service-account-token contains no time and no random value: only the names of the
# namespace, the Secret and the ServiceAccount, and the UID of the ServiceAccount. With an RSA key,
# whose signatures (RS256) have no random part either, a Secret that is deleted and created again
# contains exactly the same token. Deleting it therefore revokes the token only until it is created
# again; only a new ServiceAccount makes a new token.
# Seen: the same token after the Secret was deleted and created again, another one after the
# ServiceAccount was deleted and created again. Here: the chart takes keys from such tokens; its
# documents say to delete the ServiceAccount as well for a new key, and a cluster test does so.
set -eu
VERSION=${VERSION:-1.34.4}
. "$(dirname "$0")/lib/kube-apiserver.sh"
component kube-controller-manager NewControllerManagerCommand
cat >"$folder/kubeconfig" <<YAML
{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
 clusters: [{name: c, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}],
 users: [{name: u, user: {token: admin-token}}]}
YAML
"$folder/kube-controller-manager" --kubeconfig="$folder/kubeconfig" --controllers=serviceaccount-token-controller \
  --service-account-private-key-file="$folder/accounts.key" --leader-elect=false --bind-address=127.0.0.1 \
  --secure-port="$(free_port)" --cert-dir="$folder/manager" >"$folder/kube-controller-manager.log" 2>&1 &
server_pid="$server_pid $!"

accounts=/api/v1/namespaces/default/serviceaccounts secrets=/api/v1/namespaces/default/secrets
create_account() { echo '{"metadata": {"name": "a"}}' | api POST $accounts >/dev/null; }
create_secret() {
  echo '{"metadata": {"name": "a", "annotations": {"kubernetes.io/service-account.name": "a"}},
    "type": "kubernetes.io/service-account-token"}' | api POST $secrets >/dev/null
}
# The SHA-256 of the token, once there is one.
token() {
  for _ in $(seq 300); do
    found=$(api GET $secrets/a </dev/null | sed -n 's/.*"token": "\([^"]*\)".*/\1/p')
    [ -n "$found" ] && break
    sleep 0.2
  done
  [ -n "$found" ] && printf %s "$found" | sha256sum | cut -c1-16
}
create_account
create_secret
first=$(token)
api DELETE $secrets/a </dev/null >/dev/null
create_secret
again=$(token)
api DELETE $secrets/a </dev/null >/dev/null
api DELETE $accounts/a </dev/null >/dev/null
create_account
create_secret
other=$(token)
echo "first token:                       $first"
echo "after a new Secret:                $again"
echo "after a new ServiceAccount as well: $other"
[ "$first" = "$again" ] && [ "$first" != "$other" ]
