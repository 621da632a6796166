import { z } from 'zod';
import { registrySchema, tlsSchema } from './registry-schema.ts';
import { address, duration, exactUrl, httpUrl, port, proxy, text, size } from './scalars.ts';

const agentSchema = z.strictObject({
  listen: address.prefault('127.0.0.1:25000').describe('What containerd pulls from.'),
  extraPorts: z.array(port).prefault([]).describe('Ports of former releases, still answered.'),
  admin: address.prefault('127.0.0.1:25001').describe('/livez, /readyz and /metrics.'),
  readyFile: text
    .optional()
    .describe('Made once this agent itself listens, removed when it ends: `admin` may be answered by another agent on the same port.'),
  handoverSecretFile: text
    .optional()
    .describe(
      'A file with a secret that all agents of a node share: an agent hands its listening sockets only to a successor that knows it. Default: a private file in the temporary folder.',
    ),
  registry: httpUrl.optional().describe("The registry's URL: its Service's ClusterIP, since a node resolves no cluster names."),
  fallback: z.boolean().prefault(true).describe('Straight to the upstreams, mirrors first, when the registry cannot answer.'),
  proxy: proxy.prefault('direct').describe('The way out for that.'),
  mirror: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('Remove what was written when the agent ends.'),
    })
    .optional()
    .describe("Write containerd's hosts.toml; then pods need no rewriting."),
  ownHosts: z
    .strictObject({
      directory: text.prefault('/etc/containerd/certs.d').describe("containerd's config_path, as the agent sees it."),
      removeOnExit: z.boolean().prefault(true).describe('Remove the file when the agent ends.'),
    })
    .optional()
    .describe(
      "Write hosts.toml for the agent's own address while `_default/hosts.toml` is there: containerd would apply that to rewritten images too. `mirror` includes it.",
    ),
  crio: z
    .strictObject({ directory: text.prefault('/etc/containers/registries.conf.d').describe('As the agent sees it.') })
    .optional()
    .describe('Write a drop-in for CRI-O, which since 1.35 trusts no plain HTTP on loopback by itself.'),
});

/** Namespaces of what a cluster needs to run at all: their pods must start when nothing else does. */
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
  matchLabels: z.record(z.string(), z.string()).optional().describe('Labels that the pod has.'),
  matchExpressions: z
    .array(
      z.strictObject({
        key: text.describe("The label's name."),
        operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']).describe('As in Kubernetes.'),
        values: z.array(z.string()).optional().describe('With In and NotIn.'),
      }),
    )
    .optional()
    .describe('Conditions of which all hold.'),
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
  registryHost: registryHost.prefault('127.0.0.1:25000').describe('What rewritten images start with.'),
  admin: address.prefault('0.0.0.0:8444').describe('Plain HTTP: /livez, /readyz, /metrics.'),
  agents: z
    .strictObject({ namespace: text.describe('Where it is.'), daemonSet: text.describe('Its name.') })
    .optional()
    .describe('Rewrite nothing before this DaemonSet has been fully ready once, nor once under 90 % of its nodes have had it for 10 s.'),
  pullSecrets: z.enum(['skip', 'rewrite']).prefault('skip').describe('What to do with pods that have imagePullSecrets.'),
  ignorePullSecrets: z
    .array(text)
    .prefault(PLATFORM_PULL_SECRETS)
    .describe("Globs of pull secrets that say nothing about a pod's images: platforms give them to every pod, for their own registry."),
  publicRepositories: z
    .array(text)
    .prefault([])
    .describe('Globs over the full image name that are rewritten even then, beside official images of Docker Hub and Kubernetes.'),
  tls: tlsSchema.optional().describe('A given certificate; without it the webhook makes and renews its own, in the cluster.'),
  certificates: z
    .strictObject({
      namespace: text.describe('Of the Secret and the Service.'),
      secret: text.describe('The name of a Secret that is there, empty at first.'),
      service: text.describe('The name of the Service that the API server calls.'),
      configuration: text.describe('The name of the MutatingWebhookConfiguration.'),
    })
    .optional()
    .describe('Where a self-made certificate lives; the chart sets it.'),
  configuration: z
    .strictObject({
      name: text.describe('Of the MutatingWebhookConfiguration.'),
      caBundle: text
        .optional()
        .describe(
          'PEM: the certificate authorities of `tls`, which API servers are made to trust. Without it something else writes caBundle.',
        ),
    })
    .optional()
    .describe('With `tls`: the configuration that calls this webhook, to be completed by it; the chart sets it.'),
  maxReviewSize: size
    .prefault('2MiB')
    .describe('Longer reviews are not read, and their pods are created unchanged. A pod has 1.5 MiB at most.'),
  clientCaBundle: text
    .optional()
    .describe(
      'PEM: authorities of which one must have issued the certificate of every client, for API servers that are configured to show one.',
    ),
  exclude: z
    .strictObject({
      namespaces: z.array(text).prefault(INFRASTRUCTURE_NAMESPACES).describe('Globs of namespaces whose pods stay as they are.'),
      images: z.array(text).prefault([]).describe('Globs over the full image name, such as docker.io/library/redis*.'),
      podSelectors: z.array(labelSelector).prefault([]).describe('Label selectors of pods that stay as they are.'),
    })
    .prefault({})
    .describe('What stays as it is.'),
});

const edits = z.strictObject({
  prepend: z.array(z.unknown()).optional().describe('Put before what the subscriptions bring.'),
  append: z.array(z.unknown()).optional().describe('Put after it.'),
  override: z.array(z.unknown()).optional().describe('Keys laid over what has the same name; of rules: instead of all.'),
  delete: z.array(z.unknown()).optional().describe('Taken away, by name; of rules: by the whole rule.'),
});

const INTERVAL_FORM = 'a duration of at least 1s';
/** Of what is done again and again: 0 is no such thing. */
const interval = duration.refine((milliseconds) => milliseconds >= 1000, INTERVAL_FORM);

const subscription = z
  .strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'a name of letters, digits, _ and -')
      .describe('In logs, metrics and node names.'),
    url: exactUrl.optional().describe('Or urlFile.'),
    urlFile: text.optional().describe('A file that holds the URL, since the URL is a secret.'),
    interval: interval.prefault('12h').describe('How often it is fetched again.'),
    userAgent: text
      .optional()
      .describe('Default: clash.meta/vVERSION, with the version of mihomo; when the answer has no node, a few others are tried.'),
    headers: z.record(z.string(), z.string()).prefault({}).describe('Sent beside it.'),
    proxy: proxy.prefault('direct').describe('The way out for fetching it.'),
  })
  .refine((own) => (own.url === undefined) !== (own.urlFile === undefined), 'one of url and urlFile');

const clashSchema = z
  .strictObject({
    mode: z
      .enum(['nodes', 'full', 'custom'])
      .prefault('nodes')
      .describe("nodes: the subscriptions' nodes in one url-test group; full: their groups and rules too; custom: configFile."),
    subscriptions: z.array(subscription).prefault([]).describe('Where the nodes come from.'),
    override: z
      .looseObject({
        rules: edits.optional().describe('Edits of the rules.'),
        proxies: edits.optional().describe('Edits of the nodes.'),
        'proxy-groups': edits.optional().describe('Edits of the groups.'),
      })
      .prefault({})
      .describe(
        'rules, proxies, proxy-groups: { prepend, append, override, delete }; anything else is merged deeply into the mihomo config.',
      ),
    configFile: text.optional().describe('With mode custom: a mihomo config of your own.'),
    healthCheck: z
      .strictObject({
        url: exactUrl.prefault('https://registry-1.docker.io/v2/').describe('What a live node can fetch.'),
        interval: interval.prefault('5m').describe('How often.'),
      })
      .prefault({})
      .describe('What nodes are tested with.'),
    ports: z
      .strictObject({
        proxy: port.prefault(7890).describe('On 127.0.0.1, without a password.'),
        shared: port.prefault(0).describe('On 0.0.0.0, for users only; 0: off.'),
      })
      .prefault({})
      .describe('Where the proxy listens.'),
    users: z
      .array(
        z
          .strictObject({
            username: text.describe('Their name.'),
            password: text.optional().describe('Or passwordFile.'),
            passwordFile: text.optional().describe('A file that holds it.'),
          })
          .refine((own) => (own.password === undefined) !== (own.passwordFile === undefined), 'one of password and passwordFile'),
      )
      .prefault([])
      .describe('Who may use the shared port.'),
    controller: address.prefault('127.0.0.1:9090').describe("mihomo's controller; its secret is made at random."),
    admin: address.prefault('127.0.0.1:5003').describe('/livez, /readyz, /metrics, /status.'),
    directory: text.prefault('./clash').describe('What mihomo keeps: the last good config, providers.'),
    geodata: text
      .prefault('/usr/share/mihomo')
      .describe('Where geoip.dat, geosite.dat, country.mmdb and ASN.mmdb lie, for rules that need them; they are never downloaded.'),
    mihomo: text.prefault('mihomo').describe('The binary.'),
  })
  .superRefine(({ subscriptions, ports, users }, check) => {
    const report = (path: (string | number)[], input: unknown, message: string) => check.addIssue({ code: 'custom', path, message, input });
    if (ports.shared !== 0 && users.length === 0)
      report(['users'], users, 'at least one user, since ports.shared opens the proxy to the cluster');
    if (ports.shared === 0 && ports.proxy === 0) report(['ports', 'proxy'], ports.proxy, 'a port, since both are off');
    if (ports.shared !== 0 && ports.shared === ports.proxy) report(['ports', 'shared'], ports.shared, 'another port than ports.proxy');
    for (const [index, { name }] of subscriptions.entries()) {
      if (subscriptions.findIndex((other) => other.name === name) < index)
        report(['subscriptions', index, 'name'], name, 'a name of its own');
    }
  });

/** The whole configuration file: the one source of truth for the program, the JSON Schema and docs/configuration.md. */
export const configSchema = z.strictObject({
  log: z
    .strictObject({
      level: z.enum(['debug', 'info', 'warn', 'error']).prefault('info').describe('What is too small is left out.'),
      format: z.enum(['auto', 'json', 'text']).prefault('auto').describe('auto: text on a terminal, JSON elsewhere.'),
    })
    .prefault({})
    .describe('What every command writes to stdout.'),
  registry: registrySchema.prefault({}).describe('The pull-through registry. The agent and the webhook take its upstreams from here too.'),
  agent: agentSchema.prefault({}).describe("The node's own end of it."),
  webhook: webhookSchema.prefault({}).describe('The admission webhook, which rewrites the images of pods.'),
  clash: clashSchema.prefault({}).describe('The way out: mihomo, with a configuration made from subscriptions.'),
});

export type Config = z.output<typeof configSchema>;
export type AgentConfig = Config['agent'];
export type WebhookConfig = Config['webhook'];
export type ClashConfig = Config['clash'];
export { DEFAULT_UPSTREAMS } from './registry-schema.ts';
export type { RegistryConfig, S3Config, Upstream } from './registry-schema.ts';
export type { Mirror } from './upstream-schema.ts';
