{{/* Parts of the registry's pod. */}}

{{/* Sources of the projected volume that contains every secret file of the registry. */}}
{{- define "kube-registry.registrySecrets" -}}
{{- $sources := list -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- $s3 := (include "kube-registry.s3" . | fromJson).secret -}}
{{- if and (eq $storage "s3") $s3.existingSecret -}}
{{- $sources = append $sources (include "kube-registry.s3Source" (dict "name" $s3.existingSecret "accessKeyId" $s3.accessKeyIdKey "secretAccessKey" $s3.secretAccessKeyKey) | fromYaml) -}}
{{- else if and (eq $storage "s3") $s3.accessKeyId -}}
{{- $name := include "kube-registry.component" (list . "s3") -}}
{{- $sources = append $sources (include "kube-registry.s3Source" (dict "name" $name "accessKeyId" "accessKeyId" "secretAccessKey" "secretAccessKey") | fromYaml) -}}
{{- else if eq $storage "objectStorage" -}}
{{- $sources = append $sources (include "kube-registry.s3Source" (include "kube-registry.objectStorageSecret" . | fromJson) | fromYaml) -}}
{{- end -}}
{{- with include "kube-registry.inlineCredentials" . | fromJson -}}
{{- $items := list -}}
{{- range $key := keys . | sortAlpha }}{{ $items = append $items (dict "key" $key "path" (printf "upstreams/%s" $key)) }}{{ end -}}
{{- $sources = append $sources (dict "secret" (dict "name" (include "kube-registry.component" (list $ "upstreams")) "items" $items)) -}}
{{- end -}}
{{- range $name, $upstream := .Values.registry.upstreams -}}
{{- range $index, $credential := default list (default dict $upstream).credentials -}}
{{- if $credential.existingSecret -}}
{{- $items := list -}}
{{- range list "username" "password" }}{{ $items = append $items (dict "key" . "path" (printf "upstreams/%s.%d.%s" $name $index .)) }}{{ end -}}
{{- $sources = append $sources (dict "secret" (dict "name" $credential.existingSecret "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or .Values.registry.users.htpasswd .Values.registry.users.existingSecret -}}
{{- $users := default (include "kube-registry.component" (list . "users")) .Values.registry.users.existingSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" $users "items" (list (dict "key" "htpasswd" "path" "users/htpasswd")))) -}}
{{- end -}}
{{- if include "kube-registry.readsPullSecrets" . -}}
{{- $key := include "kube-registry.pullSecretsKey" . | fromJson -}}
{{- $sources = append $sources (dict "secret" (dict "name" $key.name "items" (list (dict "key" $key.key "path" "pull-secrets/key")))) -}}
{{- end -}}
{{- if include "kube-registry.consoleUsers" . -}}
{{- $users := default (include "kube-registry.component" (list . "console")) .Values.console.users.existingSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" $users "items" (list (dict "key" "htpasswd" "path" "console/htpasswd")))) -}}
{{- end -}}
{{- if .Values.registry.exposed.enabled -}}
{{- $htpasswd := default (include "kube-registry.component" (list . "exposed")) .Values.registry.exposed.existingSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" $htpasswd "items" (list (dict "key" "htpasswd" "path" "exposed/htpasswd")))) -}}
{{- $items := list (dict "key" "tls.crt" "path" "exposed/tls.crt") (dict "key" "tls.key" "path" "exposed/tls.key") -}}
{{- $sources = append $sources (dict "secret" (dict "name" .Values.registry.exposed.tlsSecret "items" $items)) -}}
{{- end -}}
{{ toJson $sources }}
{{- end }}

{{- define "kube-registry.s3Source" -}}
secret:
  name: {{ .name }}
  items:
    - {key: {{ .accessKeyId }}, path: s3/accessKeyId}
    - {key: {{ .secretAccessKey }}, path: s3/secretAccessKey}
{{- end }}

{{/* Inline credentials of registry.upstreams.*.credentials: {"dockerhub.0.password": …} */}}
{{- define "kube-registry.inlineCredentials" -}}
{{- $inline := dict -}}
{{- range $name, $upstream := .Values.registry.upstreams -}}
{{- range $index, $credential := default list (default dict $upstream).credentials -}}
{{- range $key := list "username" "password" -}}
{{- with get $credential $key }}{{ $_ := set $inline (printf "%s.%d.%s" $name $index $key) (toString .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toJson $inline }}
{{- end }}

{{/* Inline certificates of registry.upstreams.*.ca: {"private.pem": …} */}}
{{- define "kube-registry.certificates" -}}
{{- $certificates := dict -}}
{{- range $name, $upstream := .Values.registry.upstreams -}}
{{- $ca := default "" (default dict $upstream).ca -}}
{{- if contains "-----BEGIN" $ca }}{{ $_ := set $certificates (printf "%s.pem" $name) $ca }}{{ end -}}
{{- end -}}
{{ toJson $certificates }}
{{- end }}

{{/* The spool uses the node's disk, so it is requested as ephemeral storage. */}}
{{- define "kube-registry.registryResources" -}}
{{- $size := default "10Gi" .Values.registry.local.size -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- $onNode := or (eq $storage "ephemeral") (and (has $storage (list "s3" "objectStorage")) (not .Values.registry.local.storageClass)) -}}
{{- $requests := $onNode | ternary (dict "requests" (dict "ephemeral-storage" $size)) dict -}}
{{ toYaml (mergeOverwrite $requests .Values.registry.resources) }}
{{- end }}

{{- define "kube-registry.storageVolume" -}}
{{- $storage := include "kube-registry.storage" . -}}
{{- $size := default "10Gi" .Values.registry.local.size -}}
- name: {{ has $storage (list "s3" "objectStorage") | ternary "spool" "data" }}
{{- if eq $storage "claim" }}
  persistentVolumeClaim: {claimName: {{ default (include "kube-registry.component" (list . "registry")) .Values.registry.persistence.existingClaim }}}
{{- else if and .Values.registry.local.storageClass (ne $storage "ephemeral") }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .Values.registry.local.storageClass }}
        resources: {requests: {storage: {{ $size }}}}
{{- else }}
  emptyDir: {sizeLimit: {{ $size }}}
{{- end }}
{{- end }}

{{/* A PersistentVolumeClaim that stays when the release is uninstalled. (dict "root" $ "component" … "values" … "size" "50Gi") */}}
{{- define "kube-registry.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "kube-registry.component" (list .root .component) }}
  labels: {{- include "kube-registry.labels" (list .root .component) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
    {{- with .values.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  accessModes: {{ default (list "ReadWriteOnce") .values.accessModes | toJson }}
  {{- with .values.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources: {requests: {storage: {{ default .size .values.size }}}}
{{- end }}
