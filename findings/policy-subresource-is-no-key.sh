#!/bin/sh
# kube-apiserver 1.36.3 (MutatingAdmissionPolicy v1). In the expressions of a policy,
# `request` is the AdmissionRequest, whose Go type has an empty subResource for the pod itself. In
# CEL the field is missing then: every expression that reads it, such as `request.subResource == ""`,
# fails with "no such key". With failurePolicy: Ignore, the policy then changes no pod, and only a
# metric shows it; the API server accepts the policy without a warning.
# Seen: the same policy changes the pod with `request.?subResource.orValue("") == ""`, and does not
# change it with `request.subResource == ""`. Here: every expression of the chart's policy reads the
# field by `.?`, and the tests render the policy with failurePolicy: Fail.
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
