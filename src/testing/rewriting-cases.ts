// Cases of rewriting that hold for the webhook and for the chart's policy alike, with the default
// configuration.

export type Pod = Record<string, unknown> & { metadata?: Record<string, unknown>; spec: Record<string, unknown> };

export const one = (image = 'nginx', more: Record<string, unknown> = {}): Pod => ({
  spec: { containers: [{ name: 'a', image }], ...more },
});
const labelled = (label: string, value: string): Pod => ({ metadata: { labels: { [label]: value } }, ...one() });
const annotated = (annotation: string, value: string): Pod => ({ metadata: { annotations: { [annotation]: value } }, ...one() });
/** A pod with a node affinity, required or preferred. */
function near(key: string, operator: string, values: string[], preferred = false): Pod {
  const matchExpressions = [{ key, operator, values }];
  const nodeAffinity = preferred
    ? { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, preference: { matchExpressions } }] }
    : { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions }] } };
  return one('nginx', { affinity: { nodeAffinity } });
}

const SHA = `sha256:${'0123456789abcdef'.repeat(4)}`;
const SHA512 = `sha512:${'0123456789abcdef'.repeat(8)}`;
/** Image → the rewritten name after `127.0.0.1:25000/` with the defaults; undefined: it is not
 *  rewritten. */
export const IMAGE_NAMES: readonly [image: string, rewritten: string | undefined][] = [
  ['nginx', 'dockerhub/library/nginx'],
  ['nginx:1.27', 'dockerhub/library/nginx:1.27'],
  ['nginx:latest', 'dockerhub/library/nginx:latest'],
  [`nginx@${SHA}`, `dockerhub/library/nginx@${SHA}`],
  [`nginx:1.27@${SHA}`, `dockerhub/library/nginx:1.27@${SHA}`],
  [`nginx@${SHA512}`, `dockerhub/library/nginx@${SHA512}`],
  ['user/app', 'dockerhub/user/app'],
  ['user/app:v1', 'dockerhub/user/app:v1'],
  ['a/b/c/d', 'dockerhub/a/b/c/d'],
  ['docker.io/nginx', 'dockerhub/library/nginx'],
  ['docker.io/library/nginx', 'dockerhub/library/nginx'],
  ['docker.io/user/app:1', 'dockerhub/user/app:1'],
  ['index.docker.io/nginx', 'dockerhub/library/nginx'],
  ['index.docker.io/library/nginx:1', 'dockerhub/library/nginx:1'],
  ['registry-1.docker.io/nginx', 'dockerhub/library/nginx'],
  ['registry-1.docker.io/library/nginx', 'dockerhub/library/nginx'],
  ['ghcr.io/owner/app', 'ghcr/owner/app'],
  ['ghcr.io/owner/app:v1.2.3-rc.1_x', 'ghcr/owner/app:v1.2.3-rc.1_x'],
  [`ghcr.io/owner/app@${SHA}`, `ghcr/owner/app@${SHA}`],
  ['ghcr.io/app', 'ghcr/app'],
  ['quay.io/prometheus/node-exporter:v1', 'quay/prometheus/node-exporter:v1'],
  ['registry.k8s.io/pause:3.9', 'k8s/pause:3.9'],
  ['registry.k8s.io/ingress-nginx/controller:v1', 'k8s/ingress-nginx/controller:v1'],
  ['k8s.gcr.io/pause:3.6', 'k8s/pause:3.6'],
  ['gcr.io/distroless/static', 'gcr/distroless/static'],
  ['my_app', 'dockerhub/library/my_app'],
  ['my__app', 'dockerhub/library/my__app'],
  ['my--app', 'dockerhub/library/my--app'],
  ['my.app', 'dockerhub/library/my.app'],
  ['my.app:1', 'dockerhub/library/my.app:1'],
  ['nginx:1234', 'dockerhub/library/nginx:1234'],
  ['nginx:V1_A', 'dockerhub/library/nginx:V1_A'],
  [`nginx:${'t'.repeat(128)}`, `dockerhub/library/nginx:${'t'.repeat(128)}`],
  ['ab/cd:x', 'dockerhub/ab/cd:x'],
  ['0/1', 'dockerhub/0/1'],
  ['my-host/app', 'dockerhub/my-host/app'],
  // No upstream has the host.
  ['localhost/x', undefined],
  ['localhost:5000/x', undefined],
  ['a.b/c', undefined],
  ['a.b/c/d:1', undefined],
  ['a:5000/c', undefined],
  ['docker.io:443/library/nginx', undefined],
  ['ghcr.io:443/a/b', undefined],
  ['192.168.1.1/app', undefined],
  ['192.168.1.1:5000/app:1', undefined],
  ['[::1]/app', undefined],
  ['[2001:db8::1]:5000/app:1', undefined],
  // Hosts of registry.otherHosts, by default.
  ['mcr.microsoft.com/a/b:1', 'mcr.microsoft.com/a/b:1'],
  ['nvcr.io/a/b:1', 'nvcr.io/a/b:1'],
  ['public.ecr.aws/a/b:1', 'public.ecr.aws/a/b:1'],
  ['docker.elastic.co/a/b:1', 'docker.elastic.co/a/b:1'],
  ['lscr.io/a/b:1', 'lscr.io/a/b:1'],
  ['registry.gitlab.com/a/b:1', 'registry.gitlab.com/a/b:1'],
  ['registry.access.redhat.com/a/b:1', 'registry.access.redhat.com/a/b:1'],
  ['cgr.dev/a/b:1', 'cgr.dev/a/b:1'],
  ['cr.l5d.io/a/b:1', 'cr.l5d.io/a/b:1'],
  ['cr.fluentbit.io/a/b:1', 'cr.fluentbit.io/a/b:1'],
  ['docker.n8n.io/a/b:1', 'docker.n8n.io/a/b:1'],
  ['registry.ollama.ai/a/b:1', 'registry.ollama.ai/a/b:1'],
  ['europe-west1-docker.pkg.dev/a/b:1', 'europe-west1-docker.pkg.dev/a/b:1'],
  ['us-docker.pkg.dev/project/repo/app', 'us-docker.pkg.dev/project/repo/app'],
  ['123.dkr.ecr.us-east-1.amazonaws.com/app:1', undefined],
  ['MYHOST/app', undefined],
  ['Docker.io/nginx', undefined],
  ['GHCR.IO/a/b', undefined],
  ['xn--n3h.com/app', undefined],
  // Through this registry already, or through another one of the node.
  ['127.0.0.1:25000/dockerhub/library/nginx', undefined],
  [`127.0.0.1:25000/ghcr/a/b@${SHA}`, undefined],
  ['127.0.0.1/nginx', undefined],
  // No names of images.
  ['', undefined],
  [' ', undefined],
  ['nginx ', undefined],
  ['NGINX', undefined],
  ['Library/nginx/App', undefined],
  ['docker.io/Library/nginx', undefined],
  ['ghcr.io/Owner/app', undefined],
  ['nginx:', undefined],
  ['nginx@', undefined],
  ['nginx:1:2', undefined],
  ['nginx:.1', undefined],
  ['nginx:-1', undefined],
  [`nginx:${'t'.repeat(129)}`, undefined],
  ['nginx@sha256:abc', undefined],
  [`nginx@sha256:${'G'.repeat(64)}`, undefined],
  [`nginx@${SHA}:1`, undefined],
  [`nginx@md5:${'0'.repeat(32)}`, undefined],
  ['0123456789abcdef'.repeat(4), undefined],
  ['-nginx', undefined],
  ['nginx-', undefined],
  ['ngi..nx', undefined],
  ['a//b', undefined],
  ['/nginx', undefined],
  ['nginx/', undefined],
  ['docker.io/', undefined],
  ['-a.b/c', undefined],
  ['[::1/app', undefined],
  ['https://docker.io/nginx', undefined],
  ['nginx?x', undefined],
  ['ngïnx', undefined],
  ['a'.repeat(256), undefined],
  [`${'a'.repeat(240)}/b`, `dockerhub/${'a'.repeat(240)}/b`],
  [`${'a'.repeat(250)}/b`, undefined],
];

export interface PodCase {
  what: string;
  pod: Pod;
  /** Fields of the admission request that differ from those of an admin in the namespace
   *  `default`. */
  request?: { namespace?: string; userInfo?: { groups: string[] } };
}

/** Pods that must keep their images. */
export const UNCHANGED_PODS: readonly PodCase[] = [
  { what: 'kube-system', pod: one(), request: { namespace: 'kube-system' } },
  { what: 'a glob of namespaces', pod: one(), request: { namespace: 'openshift-dns' } },
  { what: 'a label', pod: { metadata: { labels: { 'kube-registry/rewrite': 'false' } }, ...one() } },
  { what: 'cnpg', pod: { metadata: { labels: { 'cnpg.io/cluster': 'db' } }, ...one() } },
  { what: 'spilo', pod: { metadata: { labels: { application: 'spilo' } }, ...one() } },
  { what: 'a critical priority', pod: one('nginx', { priorityClassName: 'system-node-critical' }) },
  { what: 'another one', pod: one('nginx', { priorityClassName: 'system-cluster-critical' }) },
  { what: 'a node that asks', pod: one(), request: { userInfo: { groups: ['system:nodes'] } } },
  { what: 'a mirror pod', pod: { metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } }, ...one() } },
  { what: 'windows', pod: one('nginx', { os: { name: 'windows' } }) },
  { what: 'windows by its node', pod: one('nginx', { nodeSelector: { 'kubernetes.io/os': 'windows' } }) },
  { what: 'fargate', pod: { metadata: { labels: { 'eks.amazonaws.com/fargate-profile': 'p' } }, ...one() } },
  { what: 'a virtual kubelet', pod: one('nginx', { nodeSelector: { type: 'virtual-kubelet' } }) },
  { what: 'a virtual kubelet by toleration', pod: one('nginx', { tolerations: [{ key: 'virtual-kubelet.io/provider' }] }) },
  { what: 'pull secrets', pod: one('user/app', { imagePullSecrets: [{ name: 's' }] }) },
  {
    what: 'a pull secret beside that of the platform',
    pod: one('user/app', { imagePullSecrets: [{ name: 'default-secret' }, { name: 's' }] }),
  },
  { what: "a catalog pod of OLM, whose operator replaces it while the image is not the source's", pod: labelled('olm.catalogSource', 'x') },
  { what: 'a virtual machine of KubeVirt, which counts as outdated otherwise', pod: labelled('kubevirt.io', 'virt-launcher') },
  { what: "the placeholder of Istio's gateways", pod: one('auto') },
];

const tolerating = (key: string): Pod => one('nginx', { tolerations: [{ key, operator: 'Exists', effect: 'NoSchedule' }] });

/** Pods that may run on virtual nodes or on Windows, as the makers of those nodes document how to
 *  ask for them. */
export const VIRTUAL_PODS: readonly [what: string, pod: Pod][] = [
  ['TKE super node, nodeSelector', one('nginx', { nodeSelector: { 'node.kubernetes.io/instance-type': 'eklet' } })],
  ['TKE super node, toleration', tolerating('eks.tke.cloud.tencent.com/eklet')],
  ['TKE super node, nodeName', one('nginx', { nodeName: 'eklet-subnet-a1b2c3-x' })],
  ['Huawei CCE to CCI 2.0', labelled('bursting.cci.io/burst-to-cci', 'enforce')],
  ['Huawei CCE to CCI 2.0 when the nodes are full', labelled('bursting.cci.io/burst-to-cci', 'localPrefer')],
  ['Huawei CCE to CCI 1.0', labelled('virtual-kubelet.io/burst-to-cci', 'auto')],
  ['Huawei CCE, nodeName', one('nginx', { nodeName: 'bursting-node' })],
  ['VKE to VCI', annotated('vke.volcengine.com/burst-to-vci', 'enforce')],
  ['VKE to VCI, toleration', tolerating('vci.vke.volcengine.com/node-type')],
  ['ACK to ECI', labelled('alibabacloud.com/eci', 'true')],
  ['ACK to ECI when the nodes are full', annotated('alibabacloud.com/burst-resource', 'eci')],
  ['ACK to ACS', labelled('alibabacloud.com/acs', 'true')],
  ['ACS itself', labelled('alibabacloud.com/compute-class', 'general-purpose')],
  ['Fargate', one('nginx', { nodeSelector: { 'eks.amazonaws.com/compute-type': 'fargate' } })],
  ['Liqo', tolerating('virtual-node.liqo.io/not-allowed')],
  ['a virtual kubelet, affinity', near('type', 'In', ['virtual-kubelet'])],
  ['a virtual kubelet, preferred', near('type', 'In', ['virtual-kubelet'], true)],
  ['a virtual node, by its key', near('alibabacloud.com/virtual-node', 'In', ['true'])],
  ['a virtual node, by its key alone', near('virtual-kubelet.io/provider', 'Exists', [])],
  ['Windows, affinity', near('kubernetes.io/os', 'In', ['windows'])],
  ['Windows, not Linux', near('kubernetes.io/os', 'NotIn', ['linux'])],
  [
    'a DaemonSet, on a virtual node',
    one('nginx', {
      affinity: {
        nodeAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: {
            nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['virtual-kubelet-cn-beijing-a'] }] }],
          },
        },
      },
    }),
  ],
];

/** Pods that keep off such nodes. */
export const NOT_VIRTUAL_PODS: readonly [what: string, pod: Pod][] = [
  ['a refusal', labelled('bursting.cci.io/burst-to-cci', 'off')],
  ['another one', labelled('alibabacloud.com/eci', 'false')],
  ['not on virtual nodes', near('type', 'NotIn', ['virtual-kubelet'])],
  ['not by a key', near('virtual-kubelet.io/provider', 'DoesNotExist', [])],
  ['not on Windows', near('kubernetes.io/os', 'NotIn', ['windows'])],
  ['on Linux', near('kubernetes.io/os', 'In', ['linux'])],
  ['EKS Auto Mode, whose nodes are machines', one('nginx', { nodeSelector: { 'eks.amazonaws.com/compute-type': 'auto' } })],
  ['a logging agent that runs everywhere', one('nginx', { tolerations: [{ operator: 'Exists' }] })],
  ['an instance type', one('nginx', { nodeSelector: { 'node.kubernetes.io/instance-type': 'm5.large' } })],
];

export const withSecrets = (...names: string[]) => ({ imagePullSecrets: names.map((name) => ({ name })) });

/** Pods whose pull secrets every pod of a platform has, or whose images are public. */
export const PLATFORM_SECRET_PODS: readonly [what: string, pod: Pod][] = [
  ['OpenShift', one('user/app', withSecrets('default-dockercfg-7k2xq'))],
  ['OpenShift, another account', one('ghcr.io/a/b', withSecrets('deployer-dockercfg-x9v4z'))],
  ['Huawei CCE', one('quay.io/a/b', withSecrets('default-secret'))],
  ['Tencent TKE', one('user/app', withSecrets('qcloudregistrykey', 'tencenthubkey'))],
  ['an official image of Docker Hub', one('nginx:1.27', withSecrets('corp-registry'))],
  ["an image of Kubernetes' own", one('registry.k8s.io/ingress-nginx/controller:v1', withSecrets('corp-registry'))],
];
