#!/bin/sh
# kube-apiserver 1.36.3 (MutatingAdmissionPolicy v1). The mutations of one policy are
# applied one after the other. When one of them fails and failurePolicy is Ignore, the changes of
# the earlier ones stay: the pod has only a part of the policy's changes.
# Seen: a policy of two mutations, the second of which replaces a label that the pod does not have:
# the pod is created with the first label changed. Here: the chart's policy has one mutation, whose
# patch contains every change.
set -eu
VERSION=${VERSION:-1.36.3}
. "$(dirname "$0")/lib/kube-apiserver.sh"
first='[JSONPatch{op: "replace", path: "/metadata/labels/a", value: "changed"}]'
second='[JSONPatch{op: "replace", path: "/metadata/labels/missing", value: "changed"}]'
policy finding Ignore 'true' "$second"
alone=$(label a)
policy finding Ignore 'true' "$first" "$second"
both=$(label a)
echo "the failing mutation alone: label $alone"
echo "after one that succeeds:    label $both"
[ "$alone" = b ] && [ "$both" = changed ]
