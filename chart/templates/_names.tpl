{{/* Names leave room for the longest suffix, -object-storage. */}}
{{- define "kube-registry.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kube-registry.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := default (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) .Values.fullnameOverride -}}
{{- /* A release may begin with a digit; a Service may not. */ -}}
{{- if regexMatch "^[0-9]" $full }}{{ $full = printf "r%s" $full }}{{ end -}}
{{ $full | replace "." "-" | trunc 45 | trimSuffix "-" }}
{{- end }}

{{/* component: (list root "registry") */}}
{{- define "kube-registry.component" -}}
{{ include "kube-registry.fullname" (index . 0) }}-{{ index . 1 }}
{{- end }}

{{- define "kube-registry.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "kube-registry.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "kube-registry.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "kube-registry.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{ include "kube-registry.commonLabels" $root }}
{{- end }}

{{/* Additional labels, without those that the chart sets itself. */}}
{{- define "kube-registry.commonLabels" -}}
{{- $own := list "helm.sh/chart" "kube-registry/rewrite" "kube-registry/metrics" -}}
{{- range list "name" "instance" "component" "version" "managed-by" }}{{ $own = append $own (printf "app.kubernetes.io/%s" .) }}{{ end -}}
{{- $labels := dict "app.kubernetes.io/part-of" "kube-registry" -}}
{{- range $key, $value := .Values.commonLabels -}}
{{- if not (has $key $own) }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- end -}}
{{ toYaml $labels }}
{{- end }}

{{/* Labels of pods. The last one keeps the webhook from rewriting them in any namespace. Versions are left out, so that a
     release that changes nothing for a pod does not restart it. */}}
{{- define "kube-registry.podLabels" -}}
{{ include "kube-registry.selector" . }}
{{ include "kube-registry.commonLabels" (index . 0) }}
kube-registry/rewrite: "false"
{{- end }}

{{/* image: (dict "root" $ "image" .Values.image "former" (list "zot" …)). The first key of the former chart that names a mirror
     determines the registry. Its repository and tag are ignored: they name images of other projects. */}}
{{- define "kube-registry.image" -}}
{{- $image := .image -}}
{{- $registry := $image.registry -}}
{{- range .former -}}
{{- $mirror := include "kube-registry.mirrorHost" . -}}
{{- if $mirror }}{{ $registry = $mirror }}{{ end -}}
{{- end -}}
{{- with .root.Values.global.imageRegistry }}{{ $registry = . }}{{ end -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{ with $registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}:{{ $tag }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The mirror host of a repository: ghcr.m.daocloud.io/project-zot/zot → ghcr.m.daocloud.io, m.daocloud.io/ghcr.io/a/b →
     m.daocloud.io/ghcr.io. Empty for the original hosts of those images. */}}
{{- define "kube-registry.mirrorHost" -}}
{{- $hosts := list -}}
{{- $repository := list -}}
{{- range splitList "/" (default "" (default dict .).repository) -}}
{{- if and (not $repository) (regexMatch "[.:]" .) }}{{ $hosts = append $hosts . }}{{ else }}{{ $repository = append $repository . }}{{ end -}}
{{- end -}}
{{- $host := join "/" $hosts -}}
{{- if and $host $repository (not (has $host (list "ghcr.io" "docker.io"))) }}{{ $host }}{{ end -}}
{{- end }}
