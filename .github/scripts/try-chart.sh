#!/usr/bin/env bash
# Installs the chart into the cluster of the current context, as the docs say it, and sees that pods come through it.
# Arguments are helm's.
set -euo pipefail
cd "$(dirname "$0")/../.."
namespace=kube-registry

kubectl create namespace "$namespace"
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=privileged
helm install kube-registry chart --namespace "$namespace" --wait --timeout 5m "$@"
helm test kube-registry --namespace "$namespace" --logs

# The webhook rewrites once it has seen every agent ready.
for _ in $(seq 30); do
  kubectl run hello --image=nginx:1.27 --restart=Never
  image=$(kubectl get pod hello --output 'jsonpath={.spec.containers[0].image}')
  [ "$image" = 127.0.0.1:25000/dockerhub/library/nginx:1.27 ] && break
  kubectl delete pod hello --now
  sleep 2
done
echo "nginx:1.27 became $image"
kubectl wait --for=condition=Ready pod/hello --timeout 3m
kubectl --namespace "$namespace" exec deployment/kube-registry-registry --container registry -- kube-registry cache ls

kubectl delete pod hello --now
helm upgrade kube-registry chart --namespace "$namespace" --reuse-values --set webhook.enabled=false --wait --timeout 5m
helm uninstall kube-registry --namespace "$namespace" --wait
test -z "$(kubectl get mutatingwebhookconfigurations --output name | grep kube-registry)"
