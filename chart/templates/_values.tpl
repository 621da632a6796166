{{/* What the values come to. Helpers give YAML or JSON where they give more than a text: (include … | fromYaml). */}}

{{/* Stands before everything in each template, for nobody promises which is rendered first: an empty section (`agent:`), a null
     and an empty string are as the default says. */}}
{{- define "kube-registry.values" -}}
{{- if not (or .Values.registry .Values.agent .Values.networkPolicy) -}}
{{- fail "\n- These values lack this chart's own defaults. Upgrade with --reset-then-reuse-values instead of --reuse-values." -}}
{{- end -}}
{{- include "kube-registry.fill" (dict "values" .Values "defaults" (.Files.Get "defaults.json" | fromJson)) -}}
{{- /* registry.config takes any key, and this one has credentials and what the webhook goes by. */ -}}
{{- range $name, $upstream := .Values.registry.config.upstreams -}}
{{- $_ := set $.Values.registry.upstreams $name $upstream -}}
{{- end -}}
{{- $_ := unset .Values.registry.config "upstreams" -}}
{{- end }}

{{/* Empty resources, labels, PriorityClass and registry of an image are valid values, and so is replicas: null, by which helm removes the key
     and the template leaves .spec.replicas to an autoscaler. */}}
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

{{/* {"v": …} without the keys whose text is empty: an empty string means unset. */}}
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

{{/* 50Gi → bytes */}}
{{- define "kube-registry.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $units (regexFind "[A-Za-z]*$" $text)) | int64 -}}
{{- end }}

{{/* 90 % of a quantity, in bytes: what may be used of a volume before images leave. */}}
{{- define "kube-registry.mostOf" -}}
{{- div (mul (include "kube-registry.bytes" . | int64) 9) 10 -}}
{{- end }}

{{/* registry.s3, and what only zot.s3 of the former chart says. Zot takes an endpoint without a scheme, which then means https. */}}
{{- define "kube-registry.s3" -}}
{{- $own := (include "kube-registry.prune" (dict "v" .Values.registry.s3) | fromJson).v -}}
{{- $former := (include "kube-registry.prune" (dict "v" (default dict .Values.zot.s3)) | fromJson).v -}}
{{- $endpoint := default "" (default dict $former.config).regionEndpoint -}}
{{- if and $endpoint (not (contains "://" $endpoint)) }}{{ $_ := set $former.config "regionEndpoint" (printf "https://%s" $endpoint) }}{{ end -}}
{{- $config := mergeOverwrite dict (default dict $former.config) (default dict $own.config) -}}
{{- $secret := mergeOverwrite dict (default dict $former.secret) (default dict $own.secret) -}}
{{ toJson (dict "config" $config "secret" $secret "workloadIdentity" $own.workloadIdentity) }}
{{- end }}

{{/* s3, objectStorage, claim, or ephemeral */}}
{{- define "kube-registry.storage" -}}
{{- $config := default dict (include "kube-registry.prune" (dict "v" .Values.registry.config) | fromJson).v.storage -}}
{{- if or (include "kube-registry.s3" . | fromJson).config.bucket $config.s3 -}}s3
{{- else if .Values.objectStorage.enabled -}}objectStorage
{{- else if or .Values.registry.persistence.enabled .Values.registry.persistence.existingClaim -}}claim
{{- else if has .Values.registry.persistence.enabled (list nil "") -}}claim
{{- else -}}ephemeral
{{- end -}}
{{- end }}

{{/* How many replicas of the registry to prepare for. Left to an autoscaler: several, where the storage allows it. */}}
{{- define "kube-registry.replicas" -}}
{{- if kindIs "invalid" .Values.registry.replicas }}{{ ternary 2 1 (eq "true" (include "kube-registry.manyWriters" .)) }}
{{- else }}{{ default 1 .Values.registry.replicas | int }}{{ end -}}
{{- end }}

{{- define "kube-registry.manyWriters" -}}
{{- if or (has (include "kube-registry.storage" .) (list "s3" "objectStorage")) (has "ReadWriteMany" .Values.registry.persistence.accessModes) }}true{{ end -}}
{{- end }}

{{/* The webhook and mirror mode are two ways to one end: one at a time. */}}
{{- define "kube-registry.webhookEnabled" -}}
{{- if and .Values.webhook.enabled (not .Values.agent.mirror.enabled) }}true{{ end -}}
{{- end }}

{{- define "kube-registry.reach" -}}
{{- default "agent" .Values.webhook.reach -}}
{{- end }}

{{- define "kube-registry.clashMode" -}}
{{- default (empty (or .Values.clash.config .Values.clash.existingConfigSecret) | ternary "nodes" "custom") .Values.clash.mode -}}
{{- end }}

{{/* The Secret with the object storage's keys, and where in it they are. Made by the chart without a key of its own: the
     token of a ServiceAccount that may do nothing, which the cluster fills in once (docs/decisions/object-storage-keys.md). */}}
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
