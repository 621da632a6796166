{{/* One line per value of the former chart that should be renamed; empty if there is none. */}}
{{- define "kube-registry.renames" -}}
{{- $zot := (include "kube-registry.prune" (dict "v" (default dict .Values.zot)) | fromJson).v -}}
{{- if or (default dict (default dict $zot.s3).config) (default dict (default dict $zot.s3).secret) }}
  zot.s3 → registry.s3 (still read)
{{- end }}
{{- if hasKey $zot "replicaCount" }}
  zot.replicaCount → registry.replicas (not read)
{{- end }}
{{- range $key := list "service" "resources" }}
{{- if hasKey $zot $key }}
  zot.{{ $key }} → registry.{{ $key }} (not read)
{{- end }}
{{- end }}
{{- range $key, $image := dict "zot.image" $zot.image "webhook.image" .Values.webhook.image "clash.image" .Values.clash.image }}
{{- with $image }}
{{- $mirror := include "kube-registry.mirrorHost" . }}
  {{ $key }} → {{ empty $mirror | ternary "image (not read: its image is not this chart's)" (printf "global.imageRegistry: %s (its host is still read)" $mirror) }}
{{- end }}
{{- end }}
{{- end }}
