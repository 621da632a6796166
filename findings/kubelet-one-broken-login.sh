#!/bin/sh
# kubelet 1.34.4 (pkg/credentialprovider). The kubelet reads all pull secrets of a pod together,
# before it selects those that an image needs. One entry whose `auth` is not base64 of user:password
# makes the kubelet reject all of them, so that it pulls no image of the pod: not with the other
# entries, not with the other secrets, and no public image either. Other tools that read a docker
# config skip such an entry.
# Seen: a good secret alone yields its login for registry.example.com; together with a secret for
# another registry whose auth is a token without a colon, it yields an error. Here:
# webhook.pullSecrets does not rewrite the images of such a pod, and `webhook report` shows why.
set -eu
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"encoding/base64"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
)

func secret(registry, login string) v1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(login))
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, registry, auth)
	return v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(config)}}
}

func logins(all ...v1.Secret) (int, error) {
	keyring, err := secrets.MakeDockerKeyring(all, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return 0, err
	}
	found, _ := keyring.Lookup("registry.example.com/acme/app")
	return len(found), nil
}

func main() {
	good, broken := secret("registry.example.com", "user:password"), secret("other.example.com", "token-without-colon")
	alone, first := logins(good)
	both, second := logins(good, broken)
	fmt.Printf("the good secret alone: %d login, error: %v\n", alone, first)
	fmt.Printf("beside a broken one:   %d logins, error: %v\n", both, second)
	if alone != 1 || first != nil || second == nil {
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod
go mod init finding >/dev/null 2>&1
source=$(go mod download -json k8s.io/kubernetes@v1.34.4 | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
go mod edit -require k8s.io/kubernetes@v1.34.4
for module in $(sed -n 's#^[[:space:]]*\(k8s.io/[a-z0-9.-]*\) => ./staging.*#\1#p' "$source/go.mod"); do
  go mod edit -replace "$module=$module@v0.34.4"
done
go build -o finding . 2>/dev/null || go build -o finding .
./finding
