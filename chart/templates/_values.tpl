{{/* Values derived from the values. Helpers that return more than a string return YAML or JSON: (include … | fromYaml). */}}

{{/* Every template includes this first, because Helm does not guarantee which template is rendered first. It replaces empty
     sections (`agent:`), nulls and empty strings by their defaults. */}}
{{- define "kube-registry.values" -}}
{{- if not (or .Values.registry .Values.agent .Values.networkPolicy) -}}
{{- fail "\n- These values lack this chart's own defaults. Upgrade with --reset-then-reuse-values instead of --reuse-values." -}}
{{- end -}}
{{- include "kube-registry.fill" (dict "values" .Values "defaults" (.Files.Get "defaults.json" | fromJson)) -}}
{{- /* registry.config accepts any key. Upstreams move out of it: they contain credentials, and the webhook needs them. */ -}}
{{- range $name, $upstream := .Values.registry.config.upstreams -}}
{{- $_ := set $.Values.registry.upstreams $name $upstream -}}
{{- end -}}
{{- $_ := unset .Values.registry.config "upstreams" -}}
{{- range list "otherHosts" "hosted" -}}
{{- if hasKey $.Values.registry.config . -}}
{{- $_ := set $.Values.registry . (get $.Values.registry.config .) -}}
{{- $_ := unset $.Values.registry.config . -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Keeps empty values that mean something: resources, labels, a PriorityClass, the registry of an image, and replicas: null.
     Helm removes a key that is null; without replicas the templates leave .spec.replicas out. */}}
{{- define "kube-registry.fill" -}}
{{- $values := .values -}}
{{- range $key, $default := .defaults -}}
{{- $value := get $values $key -}}
{{- $set := not (has $value (list nil "")) -}}
{{- if has $key (list "resources" "labels") -}}
{{- if not $set }}{{ $_ := set $values $key dict }}{{ end -}}
{{- else if and (eq $key "replicas") (or (not (hasKey $values $key)) (eq nil $value)) -}}
{{- else if not $set -}}
{{- if not (and (kindIs "string" $default) (has $key (list "registry" "priorityClassName"))) }}{{ $_ := set $values $key (deepCopy $default) }}{{ end -}}
{{- else if and (kindIs "map" $default) $default -}}
{{- include "kube-registry.fill" (dict "values" $value "defaults" $default) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Returns {"v": …} without the keys whose value is an empty string, which means unset. */}}
{{- define "kube-registry.prune" -}}
{{- if kindIs "map" .v -}}
{{- $out := dict -}}
{{- range $key, $value := .v -}}
{{- if not (and (kindIs "string" $value) (eq $value "")) -}}
{{- $_ := set $out $key (include "kube-registry.prune" (dict "v" $value) | fromJson).v -}}
{{- end -}}
{{- end -}}
{{ toJson (dict "v" $out) }}
{{- else if kindIs "slice" .v -}}
{{- $out := list -}}
{{- range .v }}{{ $out = append $out (include "kube-registry.prune" (dict "v" .) | fromJson).v }}{{ end -}}
{{ toJson (dict "v" $out) }}
{{- else -}}
{{ toJson (dict "v" .v) }}
{{- end -}}
{{- end }}

{{/* Converts a quantity (50Gi) to bytes. */}}
{{- define "kube-registry.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[A-Za-z]*$" $text)) | int64 -}}
{{- end }}

{{/* 90 % of a quantity, in bytes: above it images are removed from a volume. */}}
{{- define "kube-registry.mostOf" -}}
{{- div (mul (include "kube-registry.bytes" . | int64) 9) 10 -}}
{{- end }}

{{/* registry.s3, completed by zot.s3 of the former chart. Zot accepted an endpoint without a scheme and used https. */}}
{{- define "kube-registry.s3" -}}
{{- $own := (include "kube-registry.prune" (dict "v" .Values.registry.s3) | fromJson).v -}}
{{- $former := (include "kube-registry.prune" (dict "v" (default dict .Values.zot.s3)) | fromJson).v -}}
{{- $endpoint := default "" (default dict $former.config).regionEndpoint -}}
{{- if and $endpoint (not (contains "://" $endpoint)) }}{{ $_ := set $former.config "regionEndpoint" (printf "https://%s" $endpoint) }}{{ end -}}
{{- $config := mergeOverwrite dict (default dict $former.config) (default dict $own.config) -}}
{{- $secret := mergeOverwrite dict (default dict $former.secret) (default dict $own.secret) -}}
{{ toJson (dict "config" $config "secret" $secret "workloadIdentity" $own.workloadIdentity) }}
{{- end }}

{{/* Where images are stored: s3, objectStorage, claim or ephemeral. */}}
{{- define "kube-registry.storage" -}}
{{- $config := default dict (include "kube-registry.prune" (dict "v" .Values.registry.config) | fromJson).v.storage -}}
{{- if or (include "kube-registry.s3" . | fromJson).config.bucket $config.s3 -}}s3
{{- else if .Values.objectStorage.enabled -}}objectStorage
{{- else if or .Values.registry.persistence.enabled .Values.registry.persistence.existingClaim -}}claim
{{- else if has .Values.registry.persistence.enabled (list nil "") -}}claim
{{- else -}}ephemeral
{{- end -}}
{{- end }}

{{/* The number of replicas of the registry. If an autoscaler decides: several, provided that the storage allows it. */}}
{{- define "kube-registry.replicas" -}}
{{- if kindIs "invalid" .Values.registry.replicas }}{{ ternary 2 1 (eq "true" (include "kube-registry.manyWriters" .)) }}
{{- else }}{{ default 1 .Values.registry.replicas | int }}{{ end -}}
{{- end }}

{{- define "kube-registry.manyWriters" -}}
{{- if or (has (include "kube-registry.storage" .) (list "s3" "objectStorage")) (has "ReadWriteMany" .Values.registry.persistence.accessModes) }}true{{ end -}}
{{- end }}

{{/* Images are not rewritten in mirror mode: both serve the same purpose. */}}
{{- define "kube-registry.webhookEnabled" -}}
{{- if and .Values.webhook.enabled (not .Values.agent.mirror.enabled) }}true{{ end -}}
{{- end }}

{{/* The two modes of rewriting; during a switch, both are enabled. */}}
{{- define "kube-registry.webhookServer" -}}
{{- if and (include "kube-registry.webhookEnabled" .) (has .Values.webhook.mode (list "webhook" "both")) }}true{{ end -}}
{{- end }}

{{- define "kube-registry.policyEnabled" -}}
{{- if and (include "kube-registry.webhookEnabled" .) (has .Values.webhook.mode (list "policy" "both")) }}true{{ end -}}
{{- end }}

{{- define "kube-registry.reach" -}}
{{- default "agent" .Values.webhook.reach -}}
{{- end }}

{{- define "kube-registry.clashMode" -}}
{{- default (empty (or .Values.clash.config .Values.clash.existingConfigSecret) | ternary "nodes" "custom") .Values.clash.mode -}}
{{- end }}

{{- define "kube-registry.readsPullSecrets" -}}
{{- if or .Values.pullSecrets.allNamespaces .Values.pullSecrets.namespaces }}true{{ end -}}
{{- end }}

{{/* The Secret with the key from which the names of private images are made, and the name of its entry. By default it is the
     token of a ServiceAccount without permissions, as for the object storage. */}}
{{- define "kube-registry.pullSecretsKey" -}}
{{- if .Values.pullSecrets.existingSecret -}}
{{ toJson (dict "name" .Values.pullSecrets.existingSecret "key" "key") }}
{{- else -}}
{{ toJson (dict "name" (include "kube-registry.component" (list . "names-key")) "key" "token") }}
{{- end -}}
{{- end }}

{{/* The Secret with the keys of the object storage, and the names of its entries. By default it is the token of a
     ServiceAccount without permissions, which the cluster fills in once (docs/decisions/object-storage-keys.md). */}}
{{- define "kube-registry.objectStorageSecret" -}}
{{- $secret := .Values.objectStorage.secret -}}
{{- $name := include "kube-registry.component" (list . "object-storage") -}}
{{- if $secret.existingSecret -}}
{{ toJson (dict "name" $secret.existingSecret "accessKeyId" "accessKeyId" "secretAccessKey" "secretAccessKey") }}
{{- else if $secret.accessKeyId -}}
{{ toJson (dict "name" $name "accessKeyId" "accessKeyId" "secretAccessKey" "secretAccessKey") }}
{{- else -}}
{{ toJson (dict "name" (printf "%s-token" $name) "accessKeyId" "namespace" "secretAccessKey" "token") }}
{{- end -}}
{{- end }}
