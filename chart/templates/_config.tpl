{{/* The configuration file of each command, as YAML. It contains no secrets: they are mounted as files, to which it refers. */}}

{{- define "kube-registry.logConfig" -}}
{{ toYaml (dict "level" (default "info" .Values.logLevel) "format" "json") }}
{{- end }}

{{- define "kube-registry.secretsDirectory" -}}/run/secrets/kube-registry{{- end }}

{{/* Upstreams, with references to files instead of inline credentials and certificates. */}}
{{- define "kube-registry.upstreams" -}}
{{- $directory := include "kube-registry.secretsDirectory" . -}}
{{- $upstreams := (include "kube-registry.prune" (dict "v" .Values.registry.upstreams) | fromJson).v -}}
{{- range $name, $upstream := $upstreams -}}
{{- if $upstream -}}
{{- if contains "-----BEGIN" (default "" $upstream.ca) }}{{ $_ := set $upstream "ca" (printf "/etc/kube-registry-ca/%s.pem" $name) }}{{ end -}}
{{- range $index, $credential := default list $upstream.credentials -}}
{{- range $key := list "username" "password" -}}
{{- if or (hasKey $credential $key) $credential.existingSecret -}}
{{- $_ := unset $credential $key -}}
{{- $_ := set $credential (printf "%sFile" $key) (printf "%s/upstreams/%s.%d.%s" $directory $name $index $key) -}}
{{- end -}}
{{- end -}}
{{- $_ := unset $credential "existingSecret" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $upstreams }}
{{- end }}

{{- define "kube-registry.storageConfig" -}}
{{- $directory := include "kube-registry.secretsDirectory" . -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- if eq $storage "s3" -}}
{{- $s3 := include "kube-registry.s3" . | fromJson -}}
{{- $own := omit $s3.config "regionEndpoint" "redirect" -}}
{{- with $s3.config.regionEndpoint }}{{ $_ := set $own "endpoint" . }}{{ end -}}
{{- with $s3.config.redirect }}{{ $_ := set $own "redirect" . }}{{ end -}}
{{- if or $s3.secret.accessKeyId $s3.secret.existingSecret -}}
{{- $_ := set $own "accessKeyIdFile" (printf "%s/s3/accessKeyId" $directory) -}}
{{- $_ := set $own "secretAccessKeyFile" (printf "%s/s3/secretAccessKey" $directory) -}}
{{- end -}}
s3: {{- toYaml $own | nindent 2 }}
{{- else if eq $storage "objectStorage" -}}
s3:
  bucket: kube-registry
  endpoint: http://{{ include "kube-registry.component" (list . "object-storage") }}:7070
  createBucket: true
  accessKeyIdFile: {{ $directory }}/s3/accessKeyId
  secretAccessKeyFile: {{ $directory }}/s3/secretAccessKey
  {{- if .Values.agent.enabled }}
  # The endpoint is the Service's address, which the registry's arguments add.
  redirect: {clients: agents}
  {{- end }}
{{- else -}}
filesystem: {directory: /var/lib/kube-registry/data}
{{- end }}
{{- end }}

{{/* The size above which images are removed; empty if the chart does not know the size of the store. */}}
{{- define "kube-registry.maxSize" -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- if eq $storage "objectStorage" }}{{ if not .Values.objectStorage.persistence.existingClaim }}{{ include "kube-registry.mostOf" (default "100Gi" .Values.objectStorage.persistence.size) }}{{ end }}
{{- else if eq $storage "claim" }}{{ if not .Values.registry.persistence.existingClaim }}{{ include "kube-registry.mostOf" (default "50Gi" .Values.registry.persistence.size) }}{{ end }}
{{- else if eq $storage "ephemeral" }}{{ include "kube-registry.mostOf" (default "10Gi" .Values.registry.local.size) }}{{ end -}}
{{- end }}

{{- define "kube-registry.registryConfig" -}}
{{- $any := include "kube-registry.anyAddress" . -}}
{{- $directory := include "kube-registry.secretsDirectory" . -}}
{{- $registry := dict "listen" (printf "%s:5000" $any) "admin" (printf "%s:5001" $any) -}}
{{- $_ := set $registry "storage" (include "kube-registry.storageConfig" . | fromYaml) -}}
{{- if has (include "kube-registry.storage" .) (list "s3" "objectStorage") -}}
{{- $_ := set $registry "local" (dict "directory" "/var/lib/kube-registry/spool" "maxSize" (include "kube-registry.mostOf" (default "10Gi" .Values.registry.local.size) | int64)) -}}
{{- end -}}
{{- with include "kube-registry.maxSize" . }}{{ $_ := set $registry "cache" (dict "maxSize" (int64 .)) }}{{ end -}}
{{- if gt (include "kube-registry.replicas" . | int) 1 -}}
{{- $_ := set $registry "peers" (dict "service" (printf "%s:5000" (include "kube-registry.component" (list . "peers")))) -}}
{{- end -}}
{{- if .Values.clash.enabled }}{{ $_ := set $registry "proxy" "http://127.0.0.1:7890" }}{{ end -}}
{{- with include "kube-registry.upstreams" . | fromJson }}{{ $_ := set $registry "upstreams" . }}{{ end -}}
{{- with .Values.registry.otherHosts }}{{ $_ := set $registry "otherHosts" . }}{{ end -}}
{{- with .Values.registry.hosted }}{{ $_ := set $registry "hosted" . }}{{ end -}}
{{- if or .Values.registry.users.htpasswd .Values.registry.users.existingSecret -}}
{{- $_ := set $registry "users" (printf "%s/users/htpasswd" $directory) -}}
{{- end -}}
{{- $_ := set $registry "console" (include "kube-registry.consoleConfig" . | fromYaml) -}}
{{- if .Values.registry.exposed.enabled -}}
{{- $tls := dict "certFile" (printf "%s/exposed/tls.crt" $directory) "keyFile" (printf "%s/exposed/tls.key" $directory) -}}
{{- $_ := set $registry "exposed" (dict "listen" (printf "%s:5443" $any) "htpasswd" (printf "%s/exposed/htpasswd" $directory) "tls" $tls) -}}
{{- end -}}
{{- $own := (include "kube-registry.prune" (dict "v" .Values.registry.config) | fromJson).v -}}
{{- $config := dict "log" (include "kube-registry.logConfig" . | fromYaml) "registry" (mergeOverwrite $registry $own) -}}
{{- with include "kube-registry.pullSecretsConfig" . | fromJson }}{{ $_ := set $config "pullSecrets" . }}{{ end -}}
{{- with include "kube-registry.rewritingRules" . | fromYaml }}{{ $_ := set $config "webhook" . }}{{ end -}}
{{ toYaml $config }}
{{- end }}

{{/* Which pull secrets the registry and the webhook read; empty without any. */}}
{{- define "kube-registry.pullSecretsConfig" -}}
{{- $config := dict -}}
{{- if include "kube-registry.readsPullSecrets" . -}}
{{- $_ := set $config "keyFile" (printf "%s/pull-secrets/key" (include "kube-registry.secretsDirectory" .)) -}}
{{- if .Values.pullSecrets.allNamespaces }}{{ $_ := set $config "allNamespaces" true }}
{{- else }}{{ $_ := set $config "namespaces" .Values.pullSecrets.namespaces }}{{ end -}}
{{- end -}}
{{ toJson $config }}
{{- end }}

{{- define "kube-registry.consoleConfig" -}}
{{- $own := .Values.console -}}
{{- $console := dict "enabled" $own.enabled -}}
{{- if $own.enabled -}}
{{- if include "kube-registry.consoleUsers" . -}}
{{- $_ := set $console "users" (printf "%s/console/htpasswd" (include "kube-registry.secretsDirectory" .)) -}}
{{- end -}}
{{- if include "kube-registry.consoleListsPods" . }}{{ $_ := set $console "pods" true }}{{ end -}}
{{- with $own.grafana }}{{ $_ := set $console "grafana" . }}{{ end -}}
{{- if .Values.clash.enabled }}{{ $_ := set $console "clash" "http://127.0.0.1:5003" }}{{ end -}}
{{- if include "kube-registry.webhookServer" . -}}
{{- $_ := set $console "webhook" (printf "http://%s:8444" (include "kube-registry.component" (list . "webhook"))) -}}
{{- end -}}
{{- if .Values.agent.enabled -}}
{{- $_ := set $console "agents" (dict "namespace" .Release.Namespace "daemonSet" (include "kube-registry.component" (list . "agent"))) -}}
{{- end -}}
{{- if include "kube-registry.consoleExposed" . }}{{ $_ := set $console "listen" (printf "%s:5002" (include "kube-registry.anyAddress" .)) }}{{ end -}}
{{- end -}}
{{ toYaml $console }}
{{- end }}

{{/* The rewriting rules, for the registry. If it may list pods, it counts missed images; its console shows why images of pods are not
     rewritten; and in policy mode "webhook report" runs in its pod. */}}
{{- define "kube-registry.rewritingRules" -}}
{{- $counts := and .Values.registry.serviceAccount.listPods (include "kube-registry.webhookEnabled" .) -}}
{{- $reports := and (include "kube-registry.consoleListsPods" .) (include "kube-registry.webhookEnabled" .) -}}
{{- if or $counts $reports (include "kube-registry.policyEnabled" .) -}}
{{- $rules := pick (include "kube-registry.webhookConfig" . | fromYaml).webhook "registryHost" "pullSecrets" "ignorePullSecrets" "publicRepositories" "exclude" "watchPods" -}}
{{- if $counts }}{{ $rules = merge $rules (dict "watchPods" "5m") }}{{ end -}}
{{ toYaml $rules }}
{{- end -}}
{{- end }}

{{/* Upstreams for the agent and the webhook: without credentials and without the registry's proxies. */}}
{{- define "kube-registry.publicUpstreams" -}}
{{- $upstreams := include "kube-registry.upstreams" . | fromJson -}}
{{- range $name, $upstream := $upstreams -}}
{{- if $upstream }}{{ $_ := set $upstreams $name (omit $upstream "credentials" "proxy" "onProxyFailure") }}{{ end -}}
{{- end -}}
{{ toJson $upstreams }}
{{- end }}

{{- define "kube-registry.agentConfig" -}}
{{- $agent := dict "listen" (printf "127.0.0.1:%d" (int .Values.agent.port)) "admin" (printf "127.0.0.1:%d" (int .Values.agent.adminPort)) -}}
{{- $_ := set $agent "readyFile" "/tmp/ready" -}}
{{- $_ := set $agent "handoverSecretFile" "/etc/kube-registry-handover/secret" -}}
{{- $_ := set $agent "fallback" .Values.agent.fallback -}}
{{- with .Values.agent.extraPorts }}{{ $_ := set $agent "extraPorts" . }}{{ end -}}
{{- with .Values.agent.proxy }}{{ $_ := set $agent "proxy" . }}{{ end -}}
{{- with .Values.agent.share -}}
{{- if .enabled -}}
{{- $listen := printf "%s:%d" (include "kube-registry.anyAddress" $) (int .port) -}}
{{- $share := dict "enabled" true "listen" $listen "directory" "/var/lib/kube-registry/share" "keep" .keep -}}
{{- $_ := set $share "maxSize" (include "kube-registry.bytes" (default "2Gi" .maxSize) | int64) -}}
{{- with .rate }}{{ $_ := set $share "rate" . }}{{ end -}}
{{- $_ := set $agent "share" $share -}}
{{- end -}}
{{- end -}}
{{- if .Values.agent.mirror.enabled -}}
{{- $_ := set $agent "mirror" (dict "directory" .Values.agent.mirror.directory "removeOnExit" .Values.agent.mirror.removeOnExit) -}}
{{- end -}}
{{- if .Values.agent.crio.enabled }}{{ $_ := set $agent "crio" (dict "directory" .Values.agent.crio.directory) }}{{ end -}}
{{- $own := (include "kube-registry.prune" (dict "v" .Values.agent.config) | fromJson).v -}}
{{- $config := dict "log" (include "kube-registry.logConfig" . | fromYaml) "agent" (mergeOverwrite $agent $own) -}}
{{- with include "kube-registry.publicRegistry" (list . "kube-registry.publicUpstreams") | fromJson }}{{ $_ := set $config "registry" . }}{{ end -}}
{{ toYaml $config }}
{{- end }}

{{/* The part of the registry's configuration that the agent and the webhook need: the hosts that it serves. */}}
{{- define "kube-registry.publicRegistry" -}}
{{- $root := index . 0 -}}
{{- $registry := dict -}}
{{- with include (index . 1) $root | fromJson }}{{ $_ := set $registry "upstreams" . }}{{ end -}}
{{- with $root.Values.registry.otherHosts }}{{ $_ := set $registry "otherHosts" . }}{{ end -}}
{{- with $root.Values.registry.config.defaultUpstream }}{{ $_ := set $registry "defaultUpstream" . }}{{ end -}}
{{- $hosted := dict -}}
{{- range $name, $repositories := $root.Values.registry.hosted -}}
{{- $_ := set $hosted $name (pick (default dict $repositories) "hosts") -}}
{{- end -}}
{{- if $hosted }}{{ $_ := set $registry "hosted" $hosted }}{{ end -}}
{{ toJson $registry }}
{{- end }}

{{- define "kube-registry.webhookNamespaces" -}}
{{ toJson (concat .Values.webhook.exclude.namespaces .Values.webhook.exclude.extraNamespaces | uniq) }}
{{- end }}

{{- define "kube-registry.webhookConfig" -}}
{{- $any := include "kube-registry.anyAddress" . -}}
{{- $name := include "kube-registry.component" (list . "webhook") -}}
{{- $webhook := dict "listen" (printf "%s:%d" $any (int .Values.webhook.port)) "admin" (printf "%s:%d" $any (int .Values.webhook.adminPort)) -}}
{{- if eq "agent" (include "kube-registry.reach" .) -}}
{{- $_ := set $webhook "registryHost" (printf "127.0.0.1:%d" (int .Values.agent.port)) -}}
{{- $_ := set $webhook "agents" (dict "namespace" .Release.Namespace "daemonSet" (include "kube-registry.component" (list . "agent"))) -}}
{{- else -}}
{{- $_ := set $webhook "registryHost" .Values.webhook.registryHost -}}
{{- end -}}
{{- with .Values.webhook.pullSecrets }}{{ $_ := set $webhook "pullSecrets" . }}{{ end -}}
{{- with .Values.webhook.publicRepositories }}{{ $_ := set $webhook "publicRepositories" . }}{{ end -}}
{{- $_ := set $webhook "exclude" (dict "namespaces" (include "kube-registry.webhookNamespaces" . | fromJsonArray)) -}}
{{- range $key := list "images" "podSelectors" -}}
{{- with get $.Values.webhook.exclude $key }}{{ $_ := set $webhook.exclude $key . }}{{ end -}}
{{- end -}}
{{- if include "kube-registry.webhookTlsSecret" . -}}
{{- $_ := set $webhook "tls" (dict "certFile" "/run/secrets/kube-registry/tls/tls.crt" "keyFile" "/run/secrets/kube-registry/tls/tls.key") -}}
{{- $configuration := dict "name" $name -}}
{{- if not .Values.webhook.tls.certManager.enabled }}{{ $_ := set $configuration "caBundle" .Values.webhook.tls.caBundle }}{{ end -}}
{{- $_ := set $webhook "configuration" $configuration -}}
{{- else -}}
{{- $_ := set $webhook "certificates" (dict "namespace" .Release.Namespace "secret" (printf "%s-tls" $name) "service" $name "configuration" $name) -}}
{{- end -}}
{{- $own := (include "kube-registry.prune" (dict "v" .Values.webhook.config) | fromJson).v -}}
{{- $config := dict "log" (include "kube-registry.logConfig" . | fromYaml) "webhook" (mergeOverwrite $webhook $own) -}}
{{- with include "kube-registry.publicRegistry" (list . "kube-registry.webhookUpstreams") | fromJson }}{{ $_ := set $config "registry" . }}{{ end -}}
{{- with include "kube-registry.pullSecretsConfig" . | fromJson }}{{ $_ := set $config "pullSecrets" . }}{{ end -}}
{{ toYaml $config }}
{{- end }}

{{/* The webhook needs to know which repositories have credentials. It gets the entries, but not the files they refer to. */}}
{{- define "kube-registry.webhookUpstreams" -}}
{{- $upstreams := include "kube-registry.publicUpstreams" . | fromJson -}}
{{- $full := include "kube-registry.upstreams" . | fromJson -}}
{{- range $name, $upstream := $upstreams -}}
{{- if $upstream }}{{ with (get $full $name).credentials }}{{ $_ := set $upstream "credentials" . }}{{ end }}{{ end -}}
{{- end -}}
{{ toJson $upstreams }}
{{- end }}

{{/* The Secret with the webhook's certificate; empty if the webhook creates its own. */}}
{{- define "kube-registry.webhookTlsSecret" -}}
{{- if .Values.webhook.tls.certManager.enabled }}{{ include "kube-registry.component" (list . "webhook") }}-cert-manager
{{- else }}{{ .Values.webhook.tls.existingSecret }}{{ end -}}
{{- end }}

{{/* The whole configuration is stored in a Secret, subscription URLs included; only existing Secrets are mounted as files. */}}
{{- define "kube-registry.clashConfig" -}}
{{- $directory := include "kube-registry.secretsDirectory" . -}}
{{- $any := include "kube-registry.anyAddress" . -}}
{{- $own := .Values.clash -}}
{{- $clash := dict "mode" (include "kube-registry.clashMode" .) "admin" (printf "%s:5003" $any) "directory" "/var/lib/kube-registry/clash" -}}
{{- $subscriptions := list -}}
{{- if $own.existingSecret -}}
{{- $subscriptions = append $subscriptions (dict "name" "subscription" "urlFile" (printf "%s/clash/subscription" $directory)) -}}
{{- else if $own.subscriptionUrl -}}
{{- $subscriptions = append $subscriptions (dict "name" "subscription" "url" $own.subscriptionUrl) -}}
{{- end -}}
{{- range (include "kube-registry.prune" (dict "v" $own.subscriptions) | fromJson).v -}}
{{- $subscription := omit . "existingSecret" "key" -}}
{{- if .existingSecret }}{{ $_ := set $subscription "urlFile" (printf "%s/clash/subscription.%s" $directory .name) }}{{ end -}}
{{- $subscriptions = append $subscriptions $subscription -}}
{{- end -}}
{{- with $subscriptions }}{{ $_ := set $clash "subscriptions" . }}{{ end -}}
{{- $users := list -}}
{{- range (include "kube-registry.prune" (dict "v" $own.users) | fromJson).v -}}
{{- $user := omit . "existingSecret" "key" -}}
{{- if .existingSecret }}{{ $_ := set $user "passwordFile" (printf "%s/clash/user.%s" $directory .username) }}{{ end -}}
{{- $users = append $users $user -}}
{{- end -}}
{{- with $users }}{{ $_ := set $clash "users" . }}{{ end -}}
{{- $_ := set $clash "ports" (dict "proxy" 7890 "shared" ($own.service.enabled | ternary 7891 0)) -}}
{{- with (include "kube-registry.prune" (dict "v" $own.healthCheck) | fromJson).v }}{{ $_ := set $clash "healthCheck" . }}{{ end -}}
{{- with $own.override }}{{ $_ := set $clash "override" . }}{{ end -}}
{{- if $own.existingConfigSecret -}}
{{- $_ := set $clash "configFile" (printf "%s/clash/config.yaml" $directory) -}}
{{- else if $own.config -}}
{{- $_ := set $clash "configFile" "/etc/kube-registry/custom.yaml" -}}
{{- end -}}
{{ toYaml (dict "log" (include "kube-registry.logConfig" . | fromYaml) "clash" $clash) }}
{{- end }}
