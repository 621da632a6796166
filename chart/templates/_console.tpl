{{/* Conditions of the console. Each is empty for no. */}}

{{/* Whether login is enabled. */}}
{{- define "kube-registry.consoleUsers" -}}
{{- if and .Values.console.enabled (or .Values.console.users.htpasswd .Values.console.users.existingSecret) }}true{{ end -}}
{{- end }}

{{/* Whether the console lists the cluster's pods. */}}
{{- define "kube-registry.consoleListsPods" -}}
{{- if and .Values.console.enabled .Values.console.pods }}true{{ end -}}
{{- end }}

{{/* Whether the console can be reached from outside the cluster. */}}
{{- define "kube-registry.consoleExposed" -}}
{{- if and .Values.console.enabled (or .Values.console.ingress.enabled .Values.console.httpRoute.enabled) }}true{{ end -}}
{{- end }}

{{/* Whether the registry may list pods. */}}
{{- define "kube-registry.registryListsPods" -}}
{{- if or .Values.registry.serviceAccount.listPods (include "kube-registry.consoleListsPods" .) }}true{{ end -}}
{{- end }}

{{- define "kube-registry.consoleProblems" -}}
{{- $problems := list -}}
{{- $own := .Values.console -}}
{{- range $key := list "ingress" "httpRoute" -}}
{{- if (get $own $key).enabled -}}
{{- if not $own.enabled -}}
{{- $problems = append $problems (printf "console.%s.enabled is true, but the console is disabled: write console.enabled: true." $key) -}}
{{- else if not (include "kube-registry.consoleUsers" $) -}}
{{- $problems = append $problems (printf "console.%s leads people to a login, but nobody can log in: write console.users.htpasswd, or name a Secret as console.users.existingSecret." $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $own.ingress.enabled (not (and $own.ingress.host $own.ingress.tlsSecret)) -}}
{{- $problems = append $problems "console.ingress is incomplete: write its host and tlsSecret; passwords must not travel without TLS." -}}
{{- end -}}
{{- if and $own.httpRoute.enabled (not $own.httpRoute.parentRefs) -}}
{{- $problems = append $problems "console.httpRoute is incomplete: write the Gateway as console.httpRoute.parentRefs: [{name: …}]." -}}
{{- end -}}
{{ toJson $problems }}
{{- end }}
