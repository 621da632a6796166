{{/* Rejects values that cannot work; each message says what to write instead. */}}
{{- define "kube-registry.validate" -}}
{{- $problems := concat (include "kube-registry.storageProblems" . | fromJsonArray) (include "kube-registry.clashProblems" . | fromJsonArray) (include "kube-registry.upstreamProblems" . | fromJsonArray) (include "kube-registry.reachProblems" . | fromJsonArray) (include "kube-registry.consoleProblems" . | fromJsonArray) (include "kube-registry.policyProblems" . | fromJsonArray) -}}
{{- with $problems }}{{ fail (printf "\n- %s" (join "\n- " .)) }}{{ end -}}
{{- end }}

{{- define "kube-registry.storageProblems" -}}
{{- $problems := list -}}
{{- $s3 := include "kube-registry.s3" . | fromJson -}}
{{- $secret := $s3.secret -}}
{{- $keys := or $secret.accessKeyId $secret.secretAccessKey $secret.existingSecret -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- $ownStorage := default dict (include "kube-registry.prune" (dict "v" .Values.registry.config) | fromJson).v.storage -}}
{{- if not $s3.config.bucket -}}
{{- if and (or $keys $s3.config.region $s3.config.regionEndpoint) (not $ownStorage.s3) -}}
{{- $problems = append $problems "S3 is half configured: write the bucket's name as registry.s3.config.bucket, or remove registry.s3." -}}
{{- end -}}
{{- else if and $secret.existingSecret (or $secret.accessKeyId $secret.secretAccessKey) -}}
{{- $problems = append $problems "S3 has two kinds of keys: write either registry.s3.secret.existingSecret, or accessKeyId and secretAccessKey." -}}
{{- else if and $keys $s3.workloadIdentity -}}
{{- $problems = append $problems "S3 has keys and a workload identity: remove registry.s3.workloadIdentity, or the keys in registry.s3.secret." -}}
{{- else if and $keys (not $secret.existingSecret) (not (and $secret.accessKeyId $secret.secretAccessKey)) -}}
{{- $problems = append $problems (printf "S3 is half configured: registry.s3.secret.%s is missing." (empty $secret.accessKeyId | ternary "accessKeyId" "secretAccessKey")) -}}
{{- else if not (or $keys $s3.workloadIdentity $ownStorage.s3) -}}
{{- $problems = append $problems "S3 is half configured: write registry.s3.secret.accessKeyId and secretAccessKey, or registry.s3.secret.existingSecret, or registry.s3.workloadIdentity: true if the pod has a cloud identity." -}}
{{- end -}}
{{- if and (or $s3.config.bucket $ownStorage.s3) .Values.objectStorage.enabled -}}
{{- $problems = append $problems "There are two stores: write either registry.s3 or objectStorage.enabled, not both." -}}
{{- end -}}
{{- if and (or .Values.registry.persistence.enabled .Values.registry.persistence.existingClaim) (has $storage (list "s3" "objectStorage")) -}}
{{- $problems = append $problems "There are two stores: images go to S3, so remove registry.persistence.enabled and existingClaim (registry.local.storageClass gives the local tier a volume)." -}}
{{- end -}}
{{- if and $ownStorage.filesystem (has $storage (list "s3" "objectStorage")) -}}
{{- $problems = append $problems "There are two stores: remove registry.config.storage.filesystem, or S3." -}}
{{- end -}}
{{- if and (gt (include "kube-registry.replicas" . | int) 1) (not (include "kube-registry.manyWriters" .)) -}}
{{- $problems = append $problems (printf "registry.replicas is %s, but images are stored on a volume that only one pod can use at a time: write registry.replicas: 1, or use S3 (registry.s3 or objectStorage.enabled), or a StorageClass with registry.persistence.accessModes: [ReadWriteMany]." (include "kube-registry.replicas" .)) -}}
{{- end -}}
{{- $object := .Values.objectStorage.secret -}}
{{- if and .Values.objectStorage.enabled (not $object.existingSecret) (ne (empty $object.accessKeyId) (empty $object.secretAccessKey)) -}}
{{- $problems = append $problems "objectStorage.secret is incomplete: write accessKeyId and secretAccessKey, or neither (then the chart creates a key)." -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}

{{- define "kube-registry.clashProblems" -}}
{{- $problems := list -}}
{{- $clash := .Values.clash -}}
{{- $subscribed := or $clash.subscriptionUrl $clash.existingSecret $clash.subscriptions -}}
{{- $configured := or $clash.config $clash.existingConfigSecret -}}
{{- if $clash.enabled -}}
{{- if not (or $subscribed $configured) -}}
{{- $problems = append $problems "clash.enabled is true, but there is neither a subscription nor a config: write clash.subscriptionUrl (or clash.existingSecret, clash.subscriptions), or a mihomo config as clash.config." -}}
{{- else if and (eq "custom" (include "kube-registry.clashMode" .)) (not $configured) -}}
{{- $problems = append $problems "clash.mode is custom: write the mihomo config as clash.config, or name a Secret with it as clash.existingConfigSecret." -}}
{{- else if and (ne "custom" (include "kube-registry.clashMode" .)) (not $subscribed) -}}
{{- $problems = append $problems (printf "clash.mode is %s: write clash.subscriptionUrl, or clash.mode: custom for clash.config." (include "kube-registry.clashMode" .)) -}}
{{- end -}}
{{- if and $clash.subscriptionUrl (not (regexMatch "^https?://." $clash.subscriptionUrl)) -}}
{{- $problems = append $problems "clash.subscriptionUrl is not a URL: it must start with https:// or http://." -}}
{{- end -}}
{{- if and $clash.subscriptionUrl $clash.existingSecret -}}
{{- $problems = append $problems "The subscription is given twice: write either clash.subscriptionUrl or clash.existingSecret. For several subscriptions, use clash.subscriptions." -}}
{{- end -}}
{{- if and $clash.config $clash.existingConfigSecret -}}
{{- $problems = append $problems "There are two mihomo configs: write either clash.config or clash.existingConfigSecret." -}}
{{- end -}}
{{- range $index, $one := $clash.subscriptions -}}
{{- if not (and $one.name (or $one.url $one.urlFile $one.existingSecret)) -}}
{{- $problems = append $problems (printf "clash.subscriptions.%d is incomplete: write its name, and url or existingSecret." $index) -}}
{{- end -}}
{{- end -}}
{{- range $index, $one := $clash.users -}}
{{- if not (and $one.username (or $one.password $one.passwordFile $one.existingSecret)) -}}
{{- $problems = append $problems (printf "clash.users.%d is incomplete: write its username, and password or existingSecret." $index) -}}
{{- end -}}
{{- end -}}
{{- if and $clash.service.enabled (not $clash.users) -}}
{{- $problems = append $problems "clash.service.enabled shares the proxy with the cluster, and needs passwords: write clash.users: [{username: …, password: …}]." -}}
{{- end -}}
{{- else if $clash.service.enabled -}}
{{- $problems = append $problems "clash.service.enabled is true, but clash is disabled: write clash.enabled: true." -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}

{{- define "kube-registry.upstreamProblems" -}}
{{- $problems := list -}}
{{- /* The same list as in src/config/registry-schema.ts; wrong-values.test.ts compares them. */ -}}
{{- $presets := list "dockerhub" "ghcr" "quay" "k8s" "gcr" -}}
{{- range $name, $upstream := .Values.registry.upstreams -}}
{{- if and $upstream (not $upstream.url) (not (has $name $presets)) -}}
{{- $problems = append $problems (printf "registry.upstreams.%s is not one of the defaults (%s): write its url." $name (join ", " $presets)) -}}
{{- end -}}
{{- range $index, $one := default list (default dict $upstream).credentials -}}
{{- if not (or $one.existingSecret (and (or $one.username $one.usernameFile) (or $one.password $one.passwordFile))) -}}
{{- $problems = append $problems (printf "registry.upstreams.%s.credentials.%d is incomplete: write username and password, or existingSecret." $name $index) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}

{{- define "kube-registry.reachProblems" -}}
{{- $problems := list -}}
{{- $webhook := include "kube-registry.webhookEnabled" . -}}
{{- $server := include "kube-registry.webhookServer" . -}}
{{- $reach := include "kube-registry.reach" . -}}
{{- if and $webhook (eq $reach "agent") (not .Values.agent.enabled) -}}
{{- $problems = append $problems "The webhook rewrites images to the node's agent, but agent.enabled is false: write webhook.enabled: false, or webhook.reach: external and webhook.registryHost." -}}
{{- end -}}
{{- if and $webhook (eq $reach "external") (not .Values.webhook.registryHost) -}}
{{- $problems = append $problems "webhook.reach is external: write the host under which nodes reach the registry as webhook.registryHost, such as registry.example.com." -}}
{{- else if and $webhook (eq $reach "external") (not (regexMatch "^((localhost|\\[[0-9A-Fa-f:.]+\\]|[\\w-]+(\\.[\\w-]+)+)(:[0-9]{1,5})?|[\\w-]+:[0-9]{1,5})(/[a-z0-9._-]+)*$" .Values.webhook.registryHost)) -}}
{{- $problems = append $problems "webhook.registryHost is not a host that an image name can start with: write it without https:// and without a trailing slash, such as registry.example.com or registry.example.com:5443." -}}
{{- end -}}
{{- $reads := include "kube-registry.readsPullSecrets" . -}}
{{- if and $webhook (eq .Values.webhook.pullSecrets "use") (not $reads) -}}
{{- $problems = append $problems "webhook.pullSecrets is use, but no pull secrets are read: write the namespaces whose Secrets may be read as pullSecrets.namespaces, or pullSecrets.allNamespaces: true." -}}
{{- end -}}
{{- if and $reads (not $webhook) -}}
{{- $problems = append $problems "pullSecrets lets the registry read Secrets, but without the webhook nothing uses them: remove pullSecrets.namespaces and allNamespaces. Mirror mode pulls private images with the pods' own secrets anyway." -}}
{{- end -}}
{{- if and .Values.agent.mirror.enabled (not .Values.agent.enabled) -}}
{{- $problems = append $problems "agent.mirror.enabled is true, but agent.enabled is false: write agent.enabled: true." -}}
{{- end -}}
{{- if and .Values.webhook.tls.existingSecret .Values.webhook.tls.certManager.enabled -}}
{{- $problems = append $problems "The webhook has two certificates: write either webhook.tls.existingSecret or webhook.tls.certManager.enabled." -}}
{{- else if and $server .Values.webhook.tls.existingSecret (not .Values.webhook.tls.caBundle) -}}
{{- $problems = append $problems "webhook.tls.existingSecret needs webhook.tls.caBundle: the certificate authority that the API server is to trust." -}}
{{- end -}}
{{- $exposed := .Values.registry.exposed -}}
{{- if and $exposed.enabled (not $exposed.tlsSecret) -}}
{{- $problems = append $problems "registry.exposed.enabled needs a certificate: write the name of a Secret of type kubernetes.io/tls as registry.exposed.tlsSecret." -}}
{{- end -}}
{{- if and $exposed.enabled (not (or $exposed.htpasswd $exposed.existingSecret)) -}}
{{- $problems = append $problems "registry.exposed.enabled needs passwords: write registry.exposed.htpasswd (as htpasswd -nB prints it) or registry.exposed.existingSecret." -}}
{{- end -}}
{{- $own := dict "registry" (list "listen" "admin" "peers" "exposed") -}}
{{- $_ := set $own "agent" (list "listen" "admin" "registry" "mirror" "crio") -}}
{{- $_ := set $own "webhook" (list "listen" "admin" "tls" "certificates" "configuration") -}}
{{- range $command, $keys := $own -}}
{{- range $key := $keys -}}
{{- if hasKey (get $.Values $command).config $key -}}
{{- $problems = append $problems (printf "%s.config.%s is set by the chart: remove it." $command $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $agent := .Values.agent -}}
{{- $ports := list (int $agent.adminPort) -}}
{{- range $agent.extraPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- if $agent.share.enabled }}{{ $ports = append $ports (int $agent.share.port) }}{{ end -}}
{{- if and $agent.enabled (or (has (int $agent.port) $ports) (ne (len $ports) (len (uniq $ports)))) -}}
{{- $problems = append $problems "agent.port, agent.adminPort, agent.share.port and agent.extraPorts contain the same port twice: write different ones." -}}
{{- end -}}
{{- if and $server (eq (int .Values.webhook.port) (int .Values.webhook.adminPort)) -}}
{{- $problems = append $problems "webhook.port and webhook.adminPort are the same: write different ones." -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}

{{/* What a policy cannot do. Globs become regular expressions of RE2, which has no negation. */}}
{{- define "kube-registry.policyProblems" -}}
{{- $problems := list -}}
{{- if include "kube-registry.policyEnabled" . -}}
{{- if semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- $problems = append $problems (printf "webhook.mode is %s, but Kubernetes has MutatingAdmissionPolicy (admissionregistration.k8s.io/v1) since 1.36, and this cluster is %s: write webhook.mode: webhook." .Values.webhook.mode .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $config := include "kube-registry.webhookConfig" . | fromYaml -}}
{{- if eq "use" $config.webhook.pullSecrets -}}
{{- $problems = append $problems "webhook.pullSecrets is use, but a policy cannot read Secrets: write webhook.mode: webhook, or webhook.pullSecrets: skip." -}}
{{- else if include "kube-registry.readsPullSecrets" . -}}
{{- $problems = append $problems (printf "pullSecrets lets the webhook read Secrets, which a policy cannot (webhook.mode is %s): remove pullSecrets.namespaces and allNamespaces, or write webhook.mode: webhook." .Values.webhook.mode) -}}
{{- end -}}
{{- $exclude := default dict $config.webhook.exclude -}}
{{- $globs := dict "webhook.exclude.namespaces" $exclude.namespaces "webhook.exclude.images" $exclude.images -}}
{{- $_ := set $globs "webhook.publicRepositories" $config.webhook.publicRepositories -}}
{{- $_ := set $globs "webhook.config.ignorePullSecrets" $config.webhook.ignorePullSecrets -}}
{{- $_ := set $globs "registry.otherHosts" (default dict $config.registry).otherHosts -}}
{{- range $key, $list := $globs -}}
{{- range $list -}}
{{- $glob := eq $key "registry.otherHosts" | ternary (trimPrefix "!" .) . -}}
{{- $plain := regexReplaceAll "\\{[A-Za-z0-9._:@*?-]*(?:,[A-Za-z0-9._:@*?-]*)+\\}|\\[[A-Za-z0-9._-]+\\]" $glob "" -}}
{{- if or (not (regexMatch "^[A-Za-z0-9._:@/*?-]*$" $plain)) (regexMatch "[^/]\\*\\*|\\*\\*[^/]" $glob) -}}
{{- $problems = append $problems (printf "%s has the glob %s, which a policy cannot express: it knows * and ?, ** as a whole component, {a,b} and [a-z]. Write it with these, or write webhook.mode: webhook." $key .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}
