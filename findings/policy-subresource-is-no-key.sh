#!/bin/sh
# kube-apiserver 1.36.3 and 1.37.2 (MutatingAdmissionPolicy v1). In the expressions of a policy,
# `request` is the AdmissionRequest, whose Go type has an empty subResource for the pod itself. In
# CEL the field is missing then: `request.subResource == ""`, and any expression that compares it,
# fails with "no such key". With failurePolicy: Ignore the whole policy then does nothing, to every
# pod, without a word but a metric; the API server takes the policy without a warning.
# Seen: the same policy changes the pod with `request.?subResource.orValue("") == ""`, and leaves it
# alone with `request.subResource == ""`. Here: every expression of the chart's policy reads it by
# `.?`, and the tests render the policy with failurePolicy: Fail.
set -eu
VERSION=${VERSION:-1.36.3}
. "$(dirname "$0")/lib/kube-apiserver.sh"
mutation='[JSONPatch{op: "replace", path: "/metadata/labels/a", value: "changed"}]'
policy finding Ignore 'request.?subResource.orValue("") == ""' "$mutation"
optional=$(label a)
policy finding Ignore 'request.subResource == ""' "$mutation"
plain=$(label a)
echo "request.?subResource.orValue(\"\") == \"\": label $optional"
echo "request.subResource == \"\":             label $plain"
[ "$optional" = changed ] && [ "$plain" = b ]
