import { z } from 'zod';
import { registrySchema, tlsSchema } from './registry-schema.ts';
import { address, duration, exactUrl, httpUrl, port, proxy, text, size } from './scalars.ts';

const agentSchema = z.strictObject({
  listen: address.prefault('127.0.0.1:25000').describe('Address that container runtimes pull from.'),
  extraPorts: z.array(port).prefault([]).describe('Additional ports to listen on, such as those of earlier releases.'),
  admin: address.prefault('127.0.0.1:25001').describe('/livez, /readyz and /metrics.'),
  readyFile: text
    .optional()
    .describe(
      'A file that exists while this agent listens. Unlike a probe of `admin`, it cannot be confused with another agent on the same port.',
    ),
  handoverSecretFile: text
    .optional()
    .describe(
      'A file with a secret that all agents of a node share: an agent hands its listening sockets only to a successor that knows the secret. Default: a private file in the temporary directory.',
    ),
  registry: httpUrl.optional().describe("URL of the registry. Use the Service's ClusterIP, because nodes do not resolve cluster names."),
  fallback: z.boolean().prefault(true).describe('Pull from the upstreams directly, mirrors first, when the registry cannot answer.'),
  proxy: proxy.prefault('direct').describe('Proxy for direct pulls: direct, or the URL of an HTTP or SOCKS5 proxy.'),
  share: z
    .strictObject({
      enabled: z.boolean().prefault(false).describe('Read blobs from other nodes, and send blobs to other nodes.'),
      listen: address
        .prefault('0.0.0.0:25002')
        .describe('Address that other nodes read from. Requests without a ticket from the registry are refused.'),
      address: z
        .string()
        .optional()
        .describe(
          'IP address at which other nodes reach this node. Default: the address of `listen`, or the source address of connections to the registry.',
        ),
      directory: text.prefault('./share').describe('Created if missing. Its content is removed when the agent stops.'),
      maxSize: size.prefault('2GiB').describe('Maximum size on disk. The least recently used blobs are removed first.'),
      keep: duration.prefault('15m').describe('How long a blob is kept after it was last read.'),
      rate: size.prefault(0).describe('Maximum number of bytes per second sent to other nodes. 0: no limit.'),
      zone: z.string().prefault('').describe('Topology zone of this node: nodes of the same zone are preferred.'),
    })
    .prefault({})
    .describe('Sharing between nodes: a node serves blobs that it is pulling, or pulled recently, to other nodes.'),
  mirror: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('When the agent stops, remove the files that it wrote.'),
    })
    .optional()
    .describe('Mirror mode: write hosts.toml files for containerd, so that pods need no rewriting.'),
  ownHosts: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('Remove the file when the agent stops.'),
    })
    .optional()
    .describe(
      "Write hosts.toml for the agent's own address while `_default/hosts.toml` exists: containerd would apply that file to rewritten images too. `mirror` includes this.",
    ),
  crio: z
    .strictObject({ directory: text.prefault('/etc/containers/registries.conf.d').describe('As the agent sees it.') })
    .optional()
    .describe('Write a drop-in for CRI-O, which since 1.35 does not accept plain HTTP on loopback by default.'),
});

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

const webhookSchema = z.strictObject({
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

const edits = z.strictObject({
  prepend: z.array(z.unknown()).optional().describe('Inserted before the entries of the subscriptions.'),
  append: z.array(z.unknown()).optional().describe('Added after them.'),
  override: z.array(z.unknown()).optional().describe('Keys merged into the entries of the same name; for rules: replaces them all.'),
  delete: z.array(z.unknown()).optional().describe('Removed by name; rules by their full text.'),
});

const INTERVAL_FORM = 'a duration of at least 1s';
/** For periodic work: 0 would mean "without a pause". */
const interval = duration.refine((milliseconds) => milliseconds >= 1000, INTERVAL_FORM);

const subscription = z
  .strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'a name of letters, digits, _ and -')
      .describe('Its name in logs, metrics and names of proxy nodes.'),
    url: exactUrl.optional().describe('The URL; or use urlFile.'),
    urlFile: text.optional().describe('A file with the URL, because the URL is a secret.'),
    interval: interval.prefault('12h').describe('How often it is downloaded again.'),
    userAgent: text
      .optional()
      .describe(
        'User-Agent of the download. Default: clash.meta/vVERSION with the version of mihomo; if the response has no proxy node, a few others are tried.',
      ),
    headers: z.record(z.string(), z.string()).prefault({}).describe('Further request headers.'),
    proxy: proxy.prefault('direct').describe('Proxy for downloading it: direct, or a URL.'),
  })
  .refine((own) => (own.url === undefined) !== (own.urlFile === undefined), 'one of url and urlFile');

const clashSchema = z
  .strictObject({
    mode: z
      .enum(['nodes', 'full', 'custom'])
      .prefault('nodes')
      .describe("nodes: the subscriptions' proxy nodes in one url-test group; full: their groups and rules as well; custom: configFile."),
    subscriptions: z.array(subscription).prefault([]).describe('Subscriptions that provide proxy nodes.'),
    override: z
      .looseObject({
        rules: edits.optional().describe('Changes to the rules.'),
        proxies: edits.optional().describe('Changes to the proxy nodes.'),
        'proxy-groups': edits.optional().describe('Changes to the proxy groups.'),
      })
      .prefault({})
      .describe(
        'rules, proxies, proxy-groups: { prepend, append, override, delete }; any other key is merged deeply into the mihomo config.',
      ),
    configFile: text.optional().describe('For mode custom: your own mihomo config.'),
    healthCheck: z
      .strictObject({
        url: exactUrl.prefault('https://registry-1.docker.io/v2/').describe('URL that a working proxy node can fetch.'),
        interval: interval.prefault('5m').describe('How often nodes are tested.'),
      })
      .prefault({})
      .describe('How proxy nodes are tested.'),
    ports: z
      .strictObject({
        proxy: port.prefault(7890).describe('Port on 127.0.0.1, without a password.'),
        shared: port.prefault(0).describe('Port on 0.0.0.0, for `users` only; 0 switches it off.'),
      })
      .prefault({})
      .describe('Ports of the proxy.'),
    users: z
      .array(
        z
          .strictObject({
            username: text.describe('User name.'),
            password: text.optional().describe('Password; or use passwordFile.'),
            passwordFile: text.optional().describe('A file that contains the password.'),
          })
          .refine((own) => (own.password === undefined) !== (own.passwordFile === undefined), 'one of password and passwordFile'),
      )
      .prefault([])
      .describe('Users of the shared port.'),
    controller: address.prefault('127.0.0.1:9090').describe("Address of mihomo's controller; its secret is random."),
    admin: address.prefault('127.0.0.1:5003').describe('/livez, /readyz, /metrics, /status.'),
    directory: text.prefault('./clash').describe('Directory for the last good config and providers.'),
    geodata: text
      .prefault('/usr/share/mihomo')
      .describe(
        'Directory of geoip.dat, geosite.dat, country.mmdb and ASN.mmdb, for rules that need them. These files are never downloaded.',
      ),
    mihomo: text.prefault('mihomo').describe('Path of the mihomo binary.'),
  })
  .superRefine(({ subscriptions, ports, users }, check) => {
    const report = (path: (string | number)[], input: unknown, message: string) => check.addIssue({ code: 'custom', path, message, input });
    if (ports.shared !== 0 && users.length === 0)
      report(['users'], users, 'at least one user, since ports.shared opens the proxy to the cluster');
    if (ports.shared === 0 && ports.proxy === 0) report(['ports', 'proxy'], ports.proxy, 'a port, since both are off');
    if (ports.shared !== 0 && ports.shared === ports.proxy) report(['ports', 'shared'], ports.shared, 'a port other than ports.proxy');
    for (const [index, { name }] of subscriptions.entries()) {
      if (subscriptions.findIndex((other) => other.name === name) < index)
        report(['subscriptions', index, 'name'], name, 'a name that no other subscription has');
    }
  });

const pullSecretsSchema = z
  .strictObject({
    namespaces: z
      .array(z.string().regex(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, 'the name of a namespace'))
      .prefault([])
      .describe('Namespaces whose pull secrets are read. The process needs permission to list and watch their Secrets.'),
    allNamespaces: z.boolean().prefault(false).describe('Read the pull secrets of every namespace; needs a ClusterRole.'),
    keyFile: text
      .optional()
      .describe(
        'A file with at least 16 random characters, the same for every webhook and registry, from which the names of private images are derived. When it changes, all of these names change.',
      ),
  })
  .superRefine(({ namespaces, allNamespaces, keyFile }, check) => {
    if (keyFile === undefined && (allNamespaces || namespaces.length > 0))
      check.addIssue({ code: 'custom', path: ['keyFile'], message: 'a file with at least 16 random characters', input: keyFile });
  });

/** Whether any pull secrets are read. */
export function readsPullSecrets({ namespaces, allNamespaces }: PullSecretsConfig): boolean {
  return allNamespaces || namespaces.length > 0;
}

/** The whole configuration file: the one source of truth for the program, the JSON Schema and
 *  docs/configuration.md. */
export const configSchema = z.strictObject({
  log: z
    .strictObject({
      level: z.enum(['debug', 'info', 'warn', 'error']).prefault('info').describe('Minimum severity to log.'),
      format: z.enum(['auto', 'json', 'text']).prefault('auto').describe('auto: readable text on a terminal, JSON elsewhere.'),
    })
    .prefault({})
    .describe('The log, which every command writes to stdout.'),
  registry: registrySchema.prefault({}).describe('The pull-through registry. The agent and the webhook use its upstreams as well.'),
  agent: agentSchema.prefault({}).describe('The agent, which runs on every node.'),
  webhook: webhookSchema.prefault({}).describe('The admission webhook, which rewrites the images of pods.'),
  clash: clashSchema.prefault({}).describe('The proxy: mihomo, with a config built from subscriptions.'),
  pullSecrets: pullSecretsSchema
    .prefault({})
    .describe('The pull secrets that the webhook and the registry read, so that private images can be cached: docs/private-images.md.'),
});

export type Config = z.output<typeof configSchema>;
export type AgentConfig = Config['agent'];
export type WebhookConfig = Config['webhook'];
export type ClashConfig = Config['clash'];
export type PullSecretsConfig = Config['pullSecrets'];
export { DEFAULT_UPSTREAMS } from './registry-schema.ts';
export type { RegistryConfig, S3Config, Upstream } from './registry-schema.ts';
export type { Mirror } from './upstream-schema.ts';
