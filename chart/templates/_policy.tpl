{{/* The MutatingAdmissionPolicy of webhook.mode: policy. It is rendered from the configuration that
     the webhook would have, and from rewriting.json, which contains the built-in rules of the
     webhook, so that both rewrite alike: test/rewriting-1.36.test.ts compares them. If an
     expression fails, the pod is not changed (failurePolicy: Ignore); the tests render the policy
     with Fail.

     The expressions are CEL. Conditions cannot use variables or refer to each other. A missing field
     is an error, hence `.?` and orValue. The API server counts the cost of every step, which makes
     steps slow: those that are evaluated for each container are few, and end early where they can. */}}

{{/* Everything that differs between releases, as JSON. */}}
{{- define "kube-registry.policyRules" -}}
{{- $facts := .Files.Get "rewriting.json" | fromJson -}}
{{- $config := include "kube-registry.webhookConfig" . | fromYaml -}}
{{- $webhook := $config.webhook -}}
{{- $exclude := default dict $webhook.exclude -}}
{{- $names := list -}}
{{- $globs := list -}}
{{- range $exclude.namespaces }}{{ if regexMatch "^[a-z0-9-]+$" . }}{{ $names = append $names . }}{{ else }}{{ $globs = append $globs . }}{{ end }}{{ end -}}
{{- $rules := dict "facts" $facts "registryHost" $webhook.registryHost "agents" $webhook.agents -}}
{{- $_ := set $rules "namespaces" $names -}}
{{- $_ := set $rules "namespacePattern" (include "kube-registry.globs" $globs) -}}
{{- $_ := set $rules "excludedPattern" (include "kube-registry.globs" $exclude.images) -}}
{{- $_ := set $rules "podSelectors" $exclude.podSelectors -}}
{{- $_ := set $rules "skipsSecrets" (ne "rewrite" (default "skip" $webhook.pullSecrets)) -}}
{{- $_ := set $rules "publicPattern" (include "kube-registry.globs" (concat $facts.publicRepositories (default list $webhook.publicRepositories))) -}}
{{- $_ := set $rules "ignoredSecretPattern" (include "kube-registry.globs" (default $facts.ignorePullSecrets $webhook.ignorePullSecrets)) -}}
{{- $_ := set $rules "served" (include "kube-registry.servedHosts" (dict "facts" $facts "registry" (default dict $config.registry)) | fromJson) -}}
{{ toJson $rules }}
{{- end }}

{{/* The hosts whose images are rewritten: {"hosts": {"docker.io/": "dockerhub/"}, "namespaces":
     {"docker.io/": "library/"}, "prefixes": ["docker.io/acme/"], "globs": "…", "excluded": "…"}.
     Hosts are written as in image names, and so are the prefixes of repositories for which the
     registry has credentials. */}}
{{- define "kube-registry.servedHosts" -}}
{{- $hosts := dict -}}
{{- $namespaces := dict -}}
{{- $prefixes := list -}}
{{- $globs := list -}}
{{- $excluded := list -}}
{{- range default .facts.otherHosts .registry.otherHosts -}}
{{- if hasPrefix "!" . }}{{ $excluded = append $excluded (trimPrefix "!" . | lower) }}
{{- else if regexMatch "[*?\\[\\]{}]" . }}{{ $globs = append $globs (lower .) }}
{{- else }}{{ $_ := set $hosts (printf "%s/" (lower .)) (printf "%s/" (lower . | replace ":" "_")) }}{{ end -}}
{{- end -}}
{{- $excludedPattern := include "kube-registry.globs" $excluded -}}
{{- range $host, $_ := $hosts -}}
{{- $name := trimSuffix "/" $host -}}
{{- if or (and $excluded (regexMatch $excludedPattern $name)) (not (regexMatch (include "kube-registry.otherHost" .) $name)) (not (regexMatch "[.:]" $name)) }}{{ $_ := unset $hosts $host }}{{ end -}}
{{- end -}}
{{- $given := default dict .registry.upstreams -}}
{{- $configured := dict -}}
{{- range $name, $preset := .facts.upstreams }}{{ if or (not (hasKey $given $name)) (get $given $name) }}{{ $_ := set $configured $name $preset }}{{ end }}{{ end -}}
{{- range $name, $own := $given }}{{ if $own }}{{ $_ := set $configured $name (mergeOverwrite (dict) (default dict (get $configured $name)) $own) }}{{ end }}{{ end -}}
{{- range $name, $own := default dict .registry.hosted }}{{ $_ := set $configured $name (dict "hosts" (default list (default dict $own).hosts)) }}{{ end -}}
{{- range $name, $own := $configured -}}
{{- $names := $own.hosts -}}
{{- if not (kindIs "slice" $names) }}{{ $names = list (include "kube-registry.hostOfUrl" (default "" $own.url)) }}{{ end -}}
{{- range $host := $names -}}
{{- if regexMatch (include "kube-registry.hostPattern" .) $host }}{{ $_ := set $hosts (printf "%s/" $host) (printf "%s/" $name) }}{{ end -}}
{{- with $own.defaultNamespace }}{{ $_ := set $namespaces (printf "%s/" $host) (printf "%s/" .) }}{{ end -}}
{{- range $own.credentials }}{{ $prefixes = append $prefixes (printf "%s/%s" $host (default "" .repositories)) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- /* Names without a host belong to Docker Hub, which a glob may match too. */ -}}
{{- $globPattern := include "kube-registry.globs" $globs -}}
{{- if and $globs (not (hasKey $hosts "docker.io/")) (regexMatch $globPattern "docker.io") (not (and $excluded (regexMatch $excludedPattern "docker.io"))) }}{{ $_ := set $hosts "docker.io/" "docker.io/" }}{{ end -}}
{{- with get $hosts "docker.io/" }}{{ $_ := set $hosts "" . }}{{ end -}}
{{- range include "kube-registry.dockerHub" . | fromJsonArray }}{{ $_ := set $namespaces . "library/" }}{{ end -}}
{{ toJson (dict "hosts" $hosts "namespaces" $namespaces "prefixes" ($prefixes | uniq) "globs" $globPattern "excluded" $excludedPattern) }}
{{- end }}

{{/* The hosts of Docker Hub, whose short names get library/ whatever is configured. */}}
{{- define "kube-registry.dockerHub" -}}
["", "docker.io/", "index.docker.io/"]
{{- end }}

{{/* https://Registry.example.com:443/v2 → registry.example.com */}}
{{- define "kube-registry.hostOfUrl" -}}
{{- $url := urlParse . -}}
{{- $port := eq "https" $url.scheme | ternary ":443" ":80" -}}
{{ $url.host | lower | trimSuffix $port }}
{{- end }}

{{/* The host of an image name, by the grammar of github.com/distribution/reference. */}}
{{- define "kube-registry.hostPattern" -}}
{{- $label := "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?" -}}
^(?:{{ $label }}(?:\.{{ $label }})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$
{{- end }}

{{/* A host of registry.otherHosts: a name and an optional port, by the grammar of
     src/oci/other-hosts.ts. */}}
{{- define "kube-registry.otherHost" -}}
{{- $label := "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?" -}}
{{- $port := "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]" -}}
^{{ $label }}(?:\.{{ $label }})*(?::(?:{{ $port }}))?$
{{- end }}

{{/* One regular expression (RE2) for a list of globs, as picomatch reads them; empty for an empty
     list. "validate" refuses the globs that RE2 cannot express, and those with ** next to other
     characters of a component. A replacement that contains special characters is first written as %
     and a letter, so that later replacements do not change it. */}}
{{- define "kube-registry.globs" -}}
{{- $patterns := list -}}
{{- range . -}}
{{- $pattern := . | replace "." "\\." | replace "{" "%o" | replace "}" "%c" | replace "," "|" -}}
{{- $pattern = regexReplaceAll "\\*\\*(?:/\\*\\*)+" $pattern "**" -}}
{{- $pattern = regexReplaceAll "^\\*\\*/" $pattern "%s" | replace "/**/" "/%s" -}}
{{- /* A final component of ** may be missing, unless a * precedes it: picomatch's own rule. */ -}}
{{- $pattern = regexReplaceAll "([^*])/\\*\\*$" $pattern "${1}%e" | replace "**" "%a" -}}
{{- $pattern = $pattern | replace "?" "[^/]" | replace "*" "[^/]*" -}}
{{- $pattern = $pattern | replace "%o" "(?:" | replace "%c" ")" | replace "%s" "(?:.*/)?" | replace "%e" "(?:/.*)?" | replace "%a" ".*" -}}
{{- $patterns = append $patterns $pattern -}}
{{- end -}}
{{- with $patterns }}^(?:{{ join "|" . }})${{ end -}}
{{- end }}

{{/* The images of a pod, as a list of maps: the JSON Pointer (RFC 6901), the container's name or
     volume/NAME, and the two parts of the image name: the host with a slash, which is empty for names
     of Docker Hub without a host, and the rest. By the grammar, the first component is a host if it
     has a dot, a colon or an upper-case letter, or is localhost. */}}
{{- define "kube-registry.celImages" -}}
{{- $ignored := include "kube-registry.ignoredImages" . | include "kube-registry.celPattern" -}}
{{- $host := "^(?:[^/]*[.:A-Z][^/]*|localhost)/" | toRawJson -}}
{{- range list "initContainers" "containers" "ephemeralContainers" -}}
object.spec.?{{ . }}.orValue([]).transformList(i, c,
  has(c.image) && !c.image.matches({{ $ignored }}) && (!has(c.imagePullPolicy) || c.imagePullPolicy != "Never"), {
  "path": "/spec/{{ . }}/" + string(i) + "/image", "key": string(c.name),
  "host": c.image.find({{ $host }}), "rest": c.image.substring(size(c.image.find({{ $host }})))})
+ {{ end -}}
object.spec.?volumes.orValue([]).transformList(i, v,
  has(v.image) && has(v.image.reference) && !v.image.reference.matches({{ $ignored }})
  && (!has(v.image.pullPolicy) || v.image.pullPolicy != "Never"), {
  "path": "/spec/volumes/" + string(i) + "/image/reference", "key": "volume/" + string(v.name),
  "host": v.image.reference.find({{ $host }}), "rest": v.image.reference.substring(size(v.image.reference.find({{ $host }})))})
{{- end }}

{{/* Images that are never rewritten: placeholders, images of the registry itself, and IDs of images,
     which are 64 hexadecimal digits. */}}
{{- define "kube-registry.ignoredImages" -}}
{{- $names := list (printf "%s(?:/|$)" (regexQuoteMeta .registryHost)) -}}
{{- range .facts.placeholders }}{{ $names = append $names (printf "%s$" (regexQuoteMeta .)) }}{{ end -}}
^(?:{{ join "|" $names }}|[a-f0-9]{64}$)
{{- end }}

{{/* All images of a pod before an update. */}}
{{- define "kube-registry.celFormer" -}}
{{ include "kube-registry.celContainers" "oldObject" }}.map(c, {
  "key": string(c.name), "image": string(c.?image.orValue(""))})
+ oldObject.spec.?volumes.orValue([]).filter(v, has(v.image)).map(v, {
  "key": "volume/" + string(v.name), "image": string(v.image.?reference.orValue(""))})
{{- end }}

{{/* The images of a pod's containers, to find out whether an update changes one. Image volumes never
     change. */}}
{{- define "kube-registry.celContainers" -}}
({{ . }}.spec.containers + {{ . }}.spec.?initContainers.orValue([]) + {{ . }}.spec.?ephemeralContainers.orValue([]))
{{- end }}

{{/* True for pods that a label selector selects. The argument is the selector: (dict "matchLabels" …
     "matchExpressions" …) */}}
{{- define "kube-registry.celSelector" -}}
{{- $terms := list -}}
{{- range $key, $value := .matchLabels -}}
{{- $terms = append $terms (printf "object.metadata.?labels[?%s].optMap(v, v == %s).orValue(false)" (toRawJson $key) (toRawJson $value)) -}}
{{- end -}}
{{- range .matchExpressions -}}
{{- $label := printf "object.metadata.?labels[?%s]" (toRawJson .key) -}}
{{- $listed := printf "%s.optMap(v, v in %s).orValue(false)" $label (toRawJson (default list .values)) -}}
{{- $term := get (dict "Exists" (printf "%s.hasValue()" $label) "DoesNotExist" (printf "!%s.hasValue()" $label) "In" $listed) .operator -}}
{{- $terms = append $terms (default (printf "!%s" $listed) $term) -}}
{{- end -}}
{{ join " && " (default (list "true") $terms) }}
{{- end }}

{{/* Every term of the node affinity. A pod usually runs on a node that it prefers. */}}
{{- define "kube-registry.celNodeTerms" -}}
(object.spec.?affinity.?nodeAffinity.?requiredDuringSchedulingIgnoredDuringExecution.?nodeSelectorTerms.orValue([])
  + object.spec.?affinity.?nodeAffinity.?preferredDuringSchedulingIgnoredDuringExecution.orValue([]).map(t, t.preference))
{{- end }}

{{- define "kube-registry.celMayRunOnWindows" -}}
object.spec.?os.?name.orValue("") == "windows"
|| {{ toRawJson .osLabels }}.exists(l, object.spec.?nodeSelector[?l].orValue("") == "windows")
|| {{ include "kube-registry.celNodeTerms" . }}.exists(t, t.?matchExpressions.orValue([]).exists(e,
  e.key in {{ toRawJson .osLabels }}
  && (e.operator == "In" && "windows" in e.?values.orValue([]) || e.operator == "NotIn" && "linux" in e.?values.orValue([]))))
{{- end }}

{{- define "kube-registry.celMayRunOnVirtualNode" -}}
{{- $refusals := toRawJson .virtual.refusals -}}
{{- $key := include "kube-registry.celPattern" .virtual.labelKey -}}
{{- $value := include "kube-registry.celPattern" .virtual.labelValue -}}
{{- $node := include "kube-registry.celPattern" .virtual.nodeName -}}
{{- range list "labels" "annotations" }}
object.metadata.?{{ . }}.orValue({}).exists(k, v, k in {{ toRawJson $.virtual.marks }} && !(v in {{ $refusals }}))
|| {{- end }} object.spec.?schedulerName.orValue("") in {{ toRawJson .virtual.schedulers }}
|| object.spec.?nodeName.orValue("").matches({{ $node }})
|| object.spec.?tolerations.orValue([]).exists(t,
  t.?key.orValue("") in {{ toRawJson .virtual.taints }} || t.?key.orValue("").matches({{ $key }}))
|| object.spec.?nodeSelector.orValue({}).exists(k, v,
  v.matches({{ $value }}) || k.matches({{ $key }}) && !(v in {{ $refusals }}))
|| {{ include "kube-registry.celNodeTerms" . }}.exists(t,
  t.?matchExpressions.orValue([]).exists(e,
    e.operator == "Exists" && e.key.matches({{ $key }})
    || e.operator == "In" && e.?values.orValue([]).exists(v,
      v.matches({{ $value }}) || e.key.matches({{ $key }}) && !(v in {{ $refusals }})))
  || t.?matchFields.orValue([]).exists(f,
    f.key == "metadata.name" && f.operator == "In" && f.?values.orValue([]).exists(v, v.matches({{ $node }}))))
{{- end }}

{{/* A quick check: false for pods without any image that may be rewritten. A first component without
     a dot or a colon is not a host. */}}
{{- define "kube-registry.celSomeImage" -}}
{{- $ours := include "kube-registry.celOurs" . -}}
{{ include "kube-registry.celContainers" "object" }}.exists(c, c.?image.orValue("").matches({{ $ours }}))
|| object.spec.?volumes.orValue([]).exists(v, v.?image.?reference.orValue("").matches({{ $ours }}))
{{- end }}

{{/* False for pods that are rewritten already, as every pod is in the second round. The conditions
     must hold in the first round even for a pod without any image that may be rewritten: otherwise
     the policy is not evaluated again after a webhook has added a sidecar. */}}
{{- define "kube-registry.celNotRewritten" -}}
{{- $prefix := printf "%s/" .registryHost | toRawJson -}}
{{ include "kube-registry.celSomeImage" . }}
|| !({{ include "kube-registry.celContainers" "object" }}.exists(c, c.?image.orValue("").startsWith({{ $prefix }}))
  || object.spec.?volumes.orValue([]).exists(v, v.?image.?reference.orValue("").startsWith({{ $prefix }})))
{{- end }}

{{/* A pattern for the beginning of every image name that may be rewritten, as a CEL literal. */}}
{{- define "kube-registry.celOurs" -}}
{{- $hosts := list -}}
{{- range $host, $_ := .served.hosts }}{{ if $host }}{{ $hosts = append $hosts (regexQuoteMeta $host) }}{{ end }}{{ end -}}
{{- $alternatives := list -}}
{{- with $hosts }}{{ $alternatives = append $alternatives (join "|" .) }}{{ end -}}
{{- if hasKey .served.hosts "" }}{{ $alternatives = append $alternatives "[a-z0-9_-]+/|[^/]+$" }}{{ end -}}
{{- with .served.globs }}{{ $alternatives = append $alternatives (printf "%s/" (trimPrefix "^" . | trimSuffix "$")) }}{{ end -}}
{{- printf "^(?:%s)" (join "|" (default (list "$.") $alternatives)) | include "kube-registry.celPattern" -}}
{{- end }}

{{/* True if the images of an update differ. */}}
{{- define "kube-registry.celChanged" -}}
request.operation == "CREATE"
|| {{ include "kube-registry.celContainers" "object" }}.map(c, c.?image.orValue(""))
  != {{ include "kube-registry.celContainers" "oldObject" }}.map(c, c.?image.orValue(""))
{{- end }}

{{/* False for requests for which the pod is not changed. This is one expression, because API servers
     evaluate every match condition, even after one that is false; the terms that are false most often
     come first. */}}
{{- define "kube-registry.celMayRewrite" -}}
{{- $conditions := list -}}
{{- $conditions = append $conditions (dict "name" "image-changed" "expression" (include "kube-registry.celChanged" .)) -}}
{{- $conditions = append $conditions (dict "name" "not-rewritten" "expression" (include "kube-registry.celNotRewritten" .)) -}}
{{- if .agents -}}
{{- $conditions = append $conditions (dict "name" "agents" "expression" "params.status.desiredNumberScheduled > 0\n&& params.status.numberReady * 10 >= params.status.desiredNumberScheduled * 9") -}}
{{- end -}}
{{- with .namespaces }}{{ $conditions = append $conditions (dict "name" "namespace" "expression" (printf "!(request.namespace in %s)" (toRawJson .))) }}{{ end -}}
{{- with .namespacePattern }}{{ $conditions = append $conditions (dict "name" "namespace-pattern" "expression" (printf "!request.namespace.matches(%s)" (include "kube-registry.celPattern" .))) }}{{ end -}}
{{- $conditions = append $conditions (dict "name" "label" "expression" "object.metadata.?labels[?\"kube-registry/rewrite\"].orValue(\"\") != \"false\"") -}}
{{- $operators := list -}}
{{- range .facts.operators -}}
{{- $selector := hasKey . "value" | ternary (dict "matchLabels" (dict .label .value)) (dict "matchExpressions" (list (dict "key" .label "operator" "Exists"))) -}}
{{- $operators = append $operators (include "kube-registry.celSelector" $selector) -}}
{{- end -}}
{{- $conditions = append $conditions (dict "name" "operator" "expression" (printf "!(%s)" (join "\n|| " $operators))) -}}
{{- range $index, $selector := .podSelectors }}{{ $conditions = append $conditions (dict "name" (printf "pod-selector-%d" $index) "expression" (printf "!(%s)" (include "kube-registry.celSelector" $selector))) }}{{ end -}}
{{- $conditions = append $conditions (dict "name" "critical" "expression" (printf "!(object.spec.?priorityClassName.orValue(\"\") in %s)" (toRawJson .facts.critical))) -}}
{{- $conditions = append $conditions (dict "name" "mirror" "expression" "!(\"system:nodes\" in request.userInfo.groups)\n&& !object.metadata.?annotations[?\"kubernetes.io/config.mirror\"].hasValue()") -}}
{{- $conditions = append $conditions (dict "name" "windows" "expression" (printf "!(%s)" (include "kube-registry.celMayRunOnWindows" .facts))) -}}
{{- $conditions = append $conditions (dict "name" "virtual-node" "expression" (printf "!(%s)" (include "kube-registry.celMayRunOnVirtualNode" .facts))) -}}
{{- range $index, $condition := $conditions }}
{{ if $index }}&& {{ end }}( // {{ $condition.name }}
{{ $condition.expression | indent 2 }})
{{- end }}
{{- end }}

{{/* A regular expression as a literal of CEL. */}}
{{- define "kube-registry.celPattern" -}}
r'{{ . }}'
{{- end }}

{{/* The images that a request adds: for an update, the changed ones; for the subresource, those of
     the new ephemeral containers. */}}
{{- define "kube-registry.celFresh" -}}
request.operation == "CREATE"
? variables.images
: request.?subResource.orValue("") == "ephemeralcontainers"
? variables.images.filter(p, p.path.startsWith("/spec/ephemeralContainers/") && !variables.former.exists(f, f.key == p.key))
: variables.images.filter(p, !variables.former.exists(f, f.key == p.key && f.image == p.host + p.rest))
{{- end }}

{{/* The images that are rewritten, with "to", the new name. */}}
{{- define "kube-registry.celRewritten" -}}
{{- $hosts := keys .served.hosts | sortAlpha | toRawJson -}}
{{- $longest := dict "host" 0 "namespace" 0 -}}
{{- range .served.hosts }}{{ $_ := set $longest "host" (max $longest.host (len .)) }}{{ end -}}
{{- range .served.namespaces }}{{ $_ := set $longest "namespace" (max $longest.namespace (len .)) }}{{ end -}}
variables.fresh.map(p,
  (p.host in {{ $hosts }} && size(p.rest) <= {{ add $longest.host $longest.namespace | sub 255 }}
  || (p.host in {{ $hosts }}{{ include "kube-registry.celMatchesGlob" . }})
  && size(({{ include "kube-registry.celTo" . }}).substring({{ len .registryHost | add1 }}).find("^[^:@]+")) <= 255)
  && p.rest.matches({{ include "kube-registry.imagePattern" . | include "kube-registry.celPattern" }})
{{- include "kube-registry.celAllowed" . }}, {
  "path": p.path, "key": p.key, "image": p.host + p.rest,
  "to": {{ include "kube-registry.celTo" . }}})
{{- end }}

{{/* The beginning of the new names of each host's images, as JSON. */}}
{{- define "kube-registry.newPrefixes" -}}
{{- $prefixes := dict -}}
{{- range $host, $name := .served.hosts }}{{ $_ := set $prefixes $host (printf "%s/%s" $.registryHost $name) }}{{ end -}}
{{ toPrettyJson $prefixes }}
{{- end }}

{{- define "kube-registry.celTo" -}}
variables.prefixes[?p.host].orValue({{ printf "%s/" .registryHost | toRawJson }} + p.host.replace(":", "_"))
    + (p.host in variables.namespaces && !p.rest.contains("/") ? variables.namespaces[p.host] : "") + p.rest
{{- end }}

{{/* Whether a glob of registry.otherHosts matches the host, as a further term of "||". */}}
{{- define "kube-registry.celMatchesGlob" -}}
{{- if .served.globs }}
  || p.host.find("^[^/]+").matches({{ include "kube-registry.celPattern" .served.globs }})
  && p.host.find("^[^/]+").matches({{ include "kube-registry.otherHost" . | include "kube-registry.celPattern" }})
  && p.host.find("^[^/:]+").matches("[.]") && size(p.host.find("^[^/:]+")) <= 253 && !isIP(p.host.find("^[^/:]+"))
{{- with .served.excluded }}
  && !p.host.find("^[^/]+").matches({{ include "kube-registry.celPattern" . }})
{{- end }}
{{- end }}
{{- end }}

{{/* A repository with tag and digest, by the grammar of github.com/distribution/reference. */}}
{{- define "kube-registry.imagePattern" -}}
{{- $component := "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*" -}}
{{- $digest := "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}" -}}
^{{ $component }}(?:/{{ $component }})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@(?:{{ $digest }}))?$
{{- end }}

{{/* The rules about single images. Globs match the full name without its tag and digest, or the whole
     one. */}}
{{- define "kube-registry.celAllowed" -}}
{{- $library := "(p.rest.contains(\"/\") ? \"docker.io/\" : \"docker.io/library/\")" -}}
{{- $full := printf "[(p.host in %s ? %s : p.host) + p.rest]" (include "kube-registry.dockerHub" .) $library -}}
{{- $bare := "f.find(\"^[^/]+/[^:@]+\")" -}}
{{- with .excludedPattern }}
{{- $pattern := include "kube-registry.celPattern" . }}
  && !{{ $full }}.exists(f, f.matches({{ $pattern }}) || {{ $bare }}.matches({{ $pattern }}))
{{- end }}
{{- if .skipsSecrets }}
{{- $pattern := include "kube-registry.celPattern" .publicPattern }}
  && (variables.needsNoSecret || {{ $full }}.exists(f, f.matches({{ $pattern }}) || {{ $bare }}.matches({{ $pattern }})
{{- range .served.prefixes }}
    || f.startsWith({{ toRawJson . }})
{{- end }}))
{{- end }}
{{- end }}

{{/* False if the images may require a pull secret of the pod itself. */}}
{{- define "kube-registry.celNeedsNoSecret" -}}
size(object.spec.?imagePullSecrets.orValue([])) <= 64
&& object.spec.?imagePullSecrets.orValue([]).all(s,
  s.?name.orValue("") == "" || s.name.matches({{ include "kube-registry.celPattern" .ignoredSecretPattern }}))
{{- end }}

{{/* The annotation with the original names: JSON, container → image. Entries of an earlier round
     stay. Valid names and images need no escapes; a value in any other form was not written by this
     policy, and is replaced. */}}
{{- define "kube-registry.celOriginals" -}}
{{- $entry := "\"[^\"\\\\{}\\x00-\\x1f]*\":\"[^\"\\\\{}\\x00-\\x1f]*\"" -}}
"{\"" + (
  (variables.known.matches({{ printf "^\\{%s(?:,%s)*\\}$" $entry $entry | include "kube-registry.celPattern" }}) ? variables.known : "")
  .findAll({{ include "kube-registry.celPattern" $entry }})
  .filter(e, !variables.rewritten.exists(p, e.startsWith("\"" + p.key + "\":"))).map(e, e.substring(1, size(e) - 1))
  + variables.rewritten.map(p, p.key + "\":\"" + p.image)).join("\",\"") + "\"}"
{{- end }}

{{/* True if the API server would take the annotation: it allows 256 KiB in all, of which 16 KiB are left to others. */}}
{{- define "kube-registry.celFits" -}}
object.metadata.?annotations.orValue({})
  .transformList(k, v, k != "kube-registry/original-images", size(bytes(k)) + size(bytes(v))).sum()
  + size(bytes("kube-registry/original-images" + variables.originals)) <= 240 * 1024
{{- end }}

{{- define "kube-registry.celPatch" -}}
variables.rewritten.map(p, JSONPatch{op: "replace", path: p.path, value: p.to})
+ (size(variables.rewritten) == 0 || request.?subResource.orValue("") == "ephemeralcontainers" || !variables.fits ? []
: has(object.metadata.annotations)
? [JSONPatch{op: "add", path: "/metadata/annotations/kube-registry~1original-images", value: variables.originals}]
: [JSONPatch{op: "add", path: "/metadata/annotations", value: {"kube-registry/original-images": variables.originals}}])
{{- end }}
