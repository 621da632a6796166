import { z } from 'zod';
import { tlsSchema } from './registry-schema.ts';
import { address, duration, size, text } from './scalars.ts';

/** Namespaces of components that a cluster cannot run without: their pods must start even when
 *  nothing else works. */
export const INFRASTRUCTURE_NAMESPACES = [
  'kube-system',
  'kube-public',
  'kube-node-lease',
  'kube-flannel',
  'calico-system',
  'calico-apiserver',
  'tigera-operator',
  'cilium',
  'cilium-secrets',
  'longhorn-system',
  'rook-ceph',
  'cert-manager',
  'metallb-system',
  'gatekeeper-system',
  'kyverno',
  'openshift-*',
];

/** Pull secrets that a platform puts into every pod or ServiceAccount. */
const PLATFORM_PULL_SECRETS = [
  '*-dockercfg-?????', // OpenShift, for its internal registry
  'default-secret', // Huawei CCE, for SWR
  'qcloudregistrykey', // Tencent TKE, for CCR
  'tencenthubkey',
  'acr-credential-*', // Alibaba ACK's credential helper, for ACR
  'awsecr-cred', // registry-creds, for ECR
];

const labelSelector = z.strictObject({
  matchLabels: z.record(z.string(), z.string()).optional().describe('Labels that the pod must have.'),
  matchExpressions: z
    .array(
      z.strictObject({
        key: text.describe("The label's name."),
        operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']).describe('As in Kubernetes.'),
        values: z.array(z.string()).optional().describe('With In and NotIn.'),
      }),
    )
    .optional()
    .describe('Conditions that must all hold.'),
});

/** A host without a dot and a port would be read as a repository of Docker Hub. */
const registryHost = z
  .string({ error: 'a host such as registry.example.com or 127.0.0.1:25000' })
  .regex(
    /^(?:(?:localhost|\[[0-9A-Fa-f:.]+\]|[\w-]+(?:\.[\w-]+)+)(?::\d{1,5})?|[\w-]+:\d{1,5})(?:\/[a-z0-9._-]+)*$/,
    'a host such as registry.example.com or 127.0.0.1:25000',
  );

export const webhookSchema = z.strictObject({
  listen: address.prefault('0.0.0.0:8443').describe('HTTPS: POST /mutate.'),
  registryHost: registryHost.prefault('127.0.0.1:25000').describe('The host that rewritten image names begin with.'),
  admin: address.prefault('0.0.0.0:8444').describe('Plain HTTP: /livez, /readyz, /metrics.'),
  agents: z
    .strictObject({ namespace: text.describe('Its namespace.'), daemonSet: text.describe('Its name.') })
    .optional()
    .describe(
      'Start rewriting once this DaemonSet has been fully ready. Pause when less than 90 % of its nodes have had a ready pod for 10 s.',
    ),
  pullSecrets: z
    .enum(['skip', 'use', 'rewrite'])
    .prefault('skip')
    .describe(
      'Pods with imagePullSecrets. skip: do not rewrite images that match a pull secret of the pod (or, if the secrets cannot be read, all images that may be private); use: pull these images through the registry with the same secrets (needs `pullSecrets`); rewrite: rewrite all images as public ones.',
    ),
  ignorePullSecrets: z
    .array(text)
    .prefault(PLATFORM_PULL_SECRETS)
    .describe(
      "Globs of pull secrets to ignore: platforms add them to every pod for their own registry, so they say nothing about the pod's images.",
    ),
  publicRepositories: z
    .array(text)
    .prefault([])
    .describe(
      'Globs of full image names that are rewritten even in pods with imagePullSecrets, in addition to the official images of Docker Hub and Kubernetes.',
    ),
  tls: tlsSchema.optional().describe('The certificate to serve. Without it, the webhook creates and renews its own in the cluster.'),
  certificates: z
    .strictObject({
      namespace: text.describe('Namespace of the Secret and the Service.'),
      secret: text.describe('Name of an existing Secret, empty at first.'),
      service: text.describe('Name of the Service that the API server calls.'),
      configuration: text.describe('Name of the MutatingWebhookConfiguration.'),
    })
    .optional()
    .describe('Where the self-created certificate is kept. Set by the chart.'),
  configuration: z
    .strictObject({
      name: text.describe('Name of the MutatingWebhookConfiguration.'),
      caBundle: text
        .optional()
        .describe(
          'PEM: the certificate authorities of `tls`, which the webhook writes into caBundle. Without this key, caBundle must be set elsewhere.',
        ),
    })
    .optional()
    .describe('With `tls`: the webhook configuration that this process completes. Set by the chart.'),
  maxReviewSize: size
    .prefault('2MiB')
    .describe('Maximum size of a review. Pods in larger reviews are created unchanged. A pod has at most 1.5 MiB.'),
  clientCaBundle: text
    .optional()
    .describe(
      'PEM: certificate authorities. Every client must present a certificate issued by one of them; configure the API servers accordingly.',
    ),
  watchPods: duration
    .refine((milliseconds) => milliseconds === 0 || milliseconds >= 1000, 'a duration of at least 1s, or 0')
    .prefault(0)
    .describe(
      'How often the registry lists the pods of the cluster and counts which images are rewritten and which should be (kube_registry_pod_images). 0: never. Needs permission to list all pods.',
    ),
  exclude: z
    .strictObject({
      namespaces: z.array(text).prefault(INFRASTRUCTURE_NAMESPACES).describe('Globs of namespaces whose pods are never rewritten.'),
      images: z.array(text).prefault([]).describe('Globs of full image names that are never rewritten, such as docker.io/library/redis*.'),
      podSelectors: z.array(labelSelector).prefault([]).describe('Label selectors of pods that are never rewritten.'),
    })
    .prefault({})
    .describe('Pods and images that are never rewritten.'),
});
