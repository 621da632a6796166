#!/bin/sh
# containerd 2.4.2. If a mirror in hosts.toml answers 401 with a Basic challenge, containerd sends
# it the user and password of the image's registry. If the mirror refuses these with the same
# challenge, containerd sends the same ones again, four times in all for one manifest, before it
# tries the next host (core/remotes/docker/resolver.go, retryRequest). After a 401 without a
# challenge, it tries the next host at once. So a mirror that cannot use a login must not repeat its
# challenge: each repetition is a failed login at the upstream, which may lock the account.
# Seen: the requests of one `ctr content fetch` to the mirror, with a challenge and without one.
set -eu
STATUS=401
. "$(dirname "$0")/lib/containerd.sh"

mkdir -p "$folder/certs.d/registry.invalid"
printf 'server = "http://127.0.0.1:9"\n[host."http://127.0.0.1:%s"]\n  capabilities = ["pull", "resolve"]\n' "$port" >"$folder/certs.d/registry.invalid/hosts.toml"
fetch() {
  : >"$folder/asked"
  ctr content fetch --hosts-dir "$folder/certs.d" --user alice:wrong registry.invalid/acme/app:1 >/dev/null 2>&1 || true
  echo "$1:"
  sed 's/^/  /' "$folder/asked"
  logins=$(grep -c ' with a login$' "$folder/asked" || true)
}

echo 'Basic realm="mirror"' >"$folder/challenge"
fetch 'with a challenge'
repeated=$logins
rm "$folder/challenge"
fetch 'without a challenge'
echo "the login was sent $repeated times with a challenge, and $logins times without one"
[ "$repeated" -gt 2 ] && [ "$logins" -eq 0 ]
