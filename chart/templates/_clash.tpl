{{- define "kube-registry.clashContainer" -}}
{{- $root := .root -}}
- name: clash
  image: {{ include "kube-registry.image" (dict "root" $root "image" $root.Values.image "former" (list $root.Values.clash.image $root.Values.zot.image)) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
  args: [clash]
  env:
    - {name: KUBE_REGISTRY_CONFIG, value: /etc/kube-registry/config.yaml}
  ports:
    - {name: clash-admin, containerPort: 5003}
    {{- if $root.Values.clash.service.enabled }}
    - {name: clash, containerPort: 7891}
    {{- end }}
  {{- if not .native }}
  # As long as the registry's own grace period, so that running pulls can finish.
  lifecycle:
    preStop: {exec: {command: [sleep, "40"]}}
  {{- end }}
  # No readiness probe: a proxy without a live node must not take the registry out of its Service.
  livenessProbe:
    httpGet: {path: /livez, port: clash-admin}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  securityContext: {{- include "kube-registry.containerSecurity" $root | nindent 4 }}
  resources: {{- toYaml $root.Values.clash.resources | nindent 4 }}
  volumeMounts:
    - {name: clash-config, mountPath: /etc/kube-registry, readOnly: true}
    - {name: clash, mountPath: /var/lib/kube-registry/clash}
    - {name: clash-tmp, mountPath: /tmp}
    {{- if include "kube-registry.clashSecrets" $root | fromJsonArray }}
    - {name: clash-secrets, mountPath: {{ include "kube-registry.secretsDirectory" $root }}, readOnly: true}
    {{- end }}
{{- end }}

{{- define "kube-registry.clashVolumes" -}}
- name: clash-config
  secret: {secretName: {{ include "kube-registry.component" (list . "clash") }}}
- name: clash
  emptyDir: {sizeLimit: 256Mi}
- name: clash-tmp
  emptyDir: {sizeLimit: 128Mi}
{{- with include "kube-registry.clashSecrets" . | fromJsonArray }}
- name: clash-secrets
  projected:
    sources: {{- toYaml . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Sources of the volume with the existing Secrets that clash uses. */}}
{{- define "kube-registry.clashSecrets" -}}
{{- $sources := list -}}
{{- with .Values.clash.existingSecret -}}
{{- $sources = append $sources (include "kube-registry.clashSource" (list . "subscriptionUrl" "subscription") | fromYaml) -}}
{{- end -}}
{{- with .Values.clash.existingConfigSecret -}}
{{- $sources = append $sources (include "kube-registry.clashSource" (list . "config.yaml" "config.yaml") | fromYaml) -}}
{{- end -}}
{{- range .Values.clash.subscriptions -}}
{{- if .existingSecret -}}
{{- $sources = append $sources (include "kube-registry.clashSource" (list .existingSecret (default "subscriptionUrl" .key) (printf "subscription.%s" .name)) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- range .Values.clash.users -}}
{{- if .existingSecret -}}
{{- $sources = append $sources (include "kube-registry.clashSource" (list .existingSecret (default "password" .key) (printf "user.%s" .username)) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{ toJson $sources }}
{{- end }}

{{- define "kube-registry.clashSource" -}}
secret:
  name: {{ index . 0 }}
  items:
    - {key: {{ index . 1 | quote }}, path: {{ printf "clash/%s" (index . 2) | quote }}}
{{- end }}
