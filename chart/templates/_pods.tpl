{{/* Fulfils Pod Security "restricted". OpenShift assigns users and groups itself. */}}
{{- define "kube-registry.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kube-registry.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* imagePullSecrets; charts that depend on this one may list bare names. */}}
{{- define "kube-registry.pullSecrets" -}}
{{- $secrets := list -}}
{{- range .Values.global.imagePullSecrets }}{{ $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}{{ end -}}
{{- with $secrets }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/* placement: (dict "values" .Values.registry "root" $ "component" "registry" "spread" true) */}}
{{- define "kube-registry.placement" -}}
nodeSelector: {{- mergeOverwrite (dict "kubernetes.io/os" "linux") .values.nodeSelector | toYaml | nindent 2 }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if and .spread (not .values.affinity) }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "kube-registry.selector" (list $.root $.component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* probes: (dict "port" "admin" "host" ""); "readyFile": a file that exists once the container has started */}}
{{- define "kube-registry.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}{{ with .host }}, host: {{ . }}{{ end }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}{{ with .host }}, host: {{ . }}{{ end }}}
  periodSeconds: 3
  timeoutSeconds: 3
startupProbe:
  {{- if .readyFile }}
  exec: {command: [test, -e, {{ .readyFile }}]}
  {{- else }}
  httpGet: {path: /livez, port: {{ .port }}{{ with .host }}, host: {{ . }}{{ end }}}
  {{- end }}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
{{- end }}

{{/* The address that means every address of a pod. Clusters whose first IP family is IPv6 need the second form. */}}
{{- define "kube-registry.anyAddress" -}}
{{- eq "IPv6" (default "IPv4" (first .Values.registry.service.ipFamilies)) | ternary "[::]" "0.0.0.0" -}}
{{- end }}

{{/* The kind of object that holds a component's configuration: a Secret if it contains a key or a URL with a password, as an
     upstream's proxy may have, else a ConfigMap. (dict "root" $ "component" "registry" "config" $config) */}}
{{- define "kube-registry.configKind" -}}
{{- regexMatch "://[^/\\s\"']*@|(?m:^[\\s-]*(accessKeyId|secretAccessKey|username|password):)" (toYaml .) | ternary "Secret" "ConfigMap" -}}
{{- end }}

{{- define "kube-registry.configObject" -}}
{{- $kind := include "kube-registry.configKind" .config -}}
apiVersion: v1
kind: {{ $kind }}
metadata:
  name: {{ include "kube-registry.component" (list .root .component) }}
  labels: {{- include "kube-registry.labels" (list .root .component) | nindent 4 }}
data:
  {{- if eq $kind "Secret" }}
  config.yaml: {{ toYaml .config | b64enc }}
  {{- else }}
  config.yaml: |
    {{- toYaml .config | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "kube-registry.configVolume" -}}
- name: config
  {{- if eq "Secret" (include "kube-registry.configKind" .config) }}
  secret: {secretName: {{ include "kube-registry.component" (list .root .component) }}}
  {{- else }}
  configMap: {name: {{ include "kube-registry.component" (list .root .component) }}}
  {{- end }}
{{- end }}
