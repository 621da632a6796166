#!/bin/sh
# kube-apiserver 1.36.3 and 1.37.2 (MutatingAdmissionPolicy v1). With reinvocationPolicy: IfNeeded a
# policy is evaluated again when a later policy or webhook has changed the object, but only if its
# match conditions held in the first round. One that the change concerns, and that had nothing to do
# before, is not asked. The same holds for webhooks and their matchConditions.
# Seen: policy `a` has to do with pods whose label is x=1, and policy `b` sets that label. With the
# label as its match condition `a` does nothing; with the same question in its mutation it changes
# the pod. Here: the chart's policy matches pods without any image that it rewrites too, so that
# sidecars are rewritten that a webhook adds to them, and the webhook has no such match condition.
set -eu
VERSION=${VERSION:-1.36.3}
. "$(dirname "$0")/lib/kube-apiserver.sh"
concerned='object.metadata.?labels[?"x"].orValue("") == "1"'
change='[JSONPatch{op: "replace", path: "/metadata/labels/a", value: "changed"}]'
policy b Ignore 'true' '[JSONPatch{op: "add", path: "/metadata/labels/x", value: "1"}]'
policy a Ignore "$concerned" "$change"
condition=$(label a)
policy a Ignore 'true' "$concerned ? $change : []"
mutation=$(label a)
echo "asked in a match condition: label $condition"
echo "asked in the mutation:      label $mutation"
[ "$condition" = b ] && [ "$mutation" = changed ]
