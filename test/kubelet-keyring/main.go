// Prints what the kubelet makes of docker configs: reads the cases of src/pull-secrets/kubelet-keyring.json from stdin and writes
// them with the kubelet's answers. See README.md.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/util/parsers"
)

// Case is an image and the pull secrets of its pod: docker configs as text.
type Case struct {
	Name  string   `json:"name"`
	Image string   `json:"image"`
	JSON  []string `json:"dockerconfigjson,omitempty"`
	Cfg   []string `json:"dockercfg,omitempty"`
	// Logins are user:password in the order in which the kubelet tries them; null where it refuses the secrets.
	Logins []string `json:"logins"`
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	for index := range cases {
		cases[index].Logins = answer(cases[index])
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(cases); err != nil {
		panic(err)
	}
}

func answer(of Case) []string {
	keyring, err := secrets.MakeDockerKeyring(secretsOf(of), &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nil
	}
	repository, _, _, err := parsers.ParseImageName(of.Image)
	if err != nil {
		panic(err)
	}
	logins := []string{}
	found, _ := keyring.Lookup(repository)
	for _, login := range found {
		logins = append(logins, login.Username+":"+login.Password)
	}
	return logins
}

func secretsOf(of Case) []v1.Secret {
	var all []v1.Secret
	add := func(kind v1.SecretType, key string, config string) {
		secret := v1.Secret{Type: kind, Data: map[string][]byte{key: []byte(config)}}
		secret.UID = types.UID(fmt.Sprint(len(all)))
		all = append(all, secret)
	}
	for _, config := range of.JSON {
		add(v1.SecretTypeDockerConfigJson, v1.DockerConfigJsonKey, config)
	}
	for _, config := range of.Cfg {
		add(v1.SecretTypeDockercfg, v1.DockerConfigKey, config)
	}
	return all
}
