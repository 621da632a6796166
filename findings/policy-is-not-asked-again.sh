#!/bin/sh
# kube-apiserver 1.36.3 and 1.37.2 (MutatingAdmissionPolicy v1). With reinvocationPolicy: IfNeeded a
# policy is evaluated again when a later policy or webhook has changed the object, but only if its
# match conditions held in the first round. If they hold only because of the change, the policy is not
# evaluated. The same applies to webhooks and their matchConditions.
# Seen: policy `a` changes pods whose label is x=1, and policy `b` sets that label. With the label as
# its match condition, `a` does nothing; if its mutation checks the label instead, it changes the
# pod. Here: the chart's policy also matches pods without any image that it rewrites, so that
# sidecars which a webhook adds are rewritten, and the webhook has no such match condition.
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
