import { z } from 'zod';
import { s3 } from './s3-schema.ts';
import { DEFAULT_UPSTREAMS, upstreamSchema as upstream, type Upstream } from './upstream-schema.ts';
import { consoleSchema } from './console-schema.ts';
import { hostedSchema, usersSchema } from './hosted-schema.ts';
import { policySchema } from './policy-schema.ts';
import { address, duration, proxy, schedule, size, text } from './scalars.ts';

const tls = z.strictObject({
  certFile: text.describe('Certificate chain in PEM form; read again when the file changes.'),
  keyFile: text.describe('Its private key in PEM form.'),
});

/** Public registries that host the images of well-known projects. */
const DEFAULT_OTHER_HOSTS = [
  'mcr.microsoft.com',
  'nvcr.io',
  'public.ecr.aws',
  'docker.elastic.co',
  'lscr.io',
  'registry.gitlab.com',
  'registry.access.redhat.com',
  'cgr.dev',
  'cr.l5d.io',
  'cr.fluentbit.io',
  'docker.n8n.io',
  'registry.ollama.ai',
  '*-docker.pkg.dev',
] as const;

/** An upstream's name is a path component of repositories and of the store's keys. */
const upstreamName = z
  .string()
  .regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'an upstream name of lower-case letters and digits, joined by . _ or -');

const storage = z
  .strictObject({
    filesystem: z
      .strictObject({ directory: text.prefault('./data').describe('Created if missing. Running downloads are spooled inside it.') })
      .optional()
      .describe('A directory.'),
    s3: s3.optional().describe('A bucket of any S3-compatible store. Replicas may share it.'),
  })
  .refine((own) => (own.filesystem === undefined) !== (own.s3 === undefined), 'exactly one of filesystem and s3');

const SHARE_FORM = 'a number from 0 to 1';
const share = z.number({ error: SHARE_FORM }).min(0, SHARE_FORM).max(1, SHARE_FORM);

export const registrySchema = z
  .strictObject({
    listen: address.prefault('127.0.0.1:5000').describe('Address of the OCI API, /v2/.'),
    admin: address.prefault('127.0.0.1:5001').describe('/livez, /readyz, /metrics and the console.'),
    console: consoleSchema,
    accessLog: z.boolean().prefault(false).describe('Log one line for each pull of an image: client, image, bytes, source and duration.'),
    policy: policySchema,
    storage: storage.prefault({ filesystem: {} }).describe('Where images are kept. Set exactly one of filesystem and s3.'),
    local: z
      .strictObject({
        directory: text.prefault('./spool').describe('Created if missing.'),
        maxSize: size.prefault('20GiB').describe('Size of the local tier. The least recently used blobs are evicted first.'),
      })
      .prefault({})
      .describe('With S3: downloads are written here first, and recently used blobs stay as a hot tier.'),
    cache: z
      .strictObject({
        tagTtl: duration.prefault('1m').describe('A tag is looked up upstream at most once in this time.'),
        staleFor: duration.prefault('30d').describe('How long a cached tag may be served while upstream cannot answer.'),
        negativeTtl: duration.prefault('10s').describe("How long an upstream's 404 is remembered."),
        maxSize: size
          .prefault(0)
          .describe(
            'Size of the store. 0: unlimited in S3, 80 % of the volume on a filesystem. The least recently used images are pruned first.',
          ),
        keep: z
          .array(text)
          .prefault([])
          .describe(
            'Globs of images that are never pruned: dockerhub/library/nginx:*, docker.io/library/*. A star matches slashes as well.',
          ),
        keepInUse: z
          .boolean()
          .prefault(false)
          .describe(
            'Never prune images that pods of the cluster currently use. Needs permission to list all pods; without it, nothing is pruned.',
          ),
        maxAge: duration.prefault(0).describe('Images that have not been pulled for this long are pruned. 0: never.'),
        maxPruneShare: share
          .prefault(0.5)
          .describe(
            'If a pruning run would remove more than this share of the stored bytes because they are too old or belong to no image, it removes nothing. 1: no limit.',
          ),
      })
      .prefault({})
      .describe('How long cached answers are valid, and how much is kept.'),
    warm: z
      .strictObject({
        images: z.array(text).prefault([]).describe('Images to fetch, as pods name them: nginx:1.27, ghcr.io/owner/name:1.'),
        cluster: z
          .boolean()
          .prefault(false)
          .describe('Fetch all images that pods of the cluster use as well. The registry must be allowed to list pods.'),
        platforms: z.array(text).prefault([]).describe("linux/amd64, linux/arm64, or all. Empty: this machine's platform."),
        schedule: schedule
          .prefault('17 3 * * *')
          .describe("When: minute, hour, day of the month, month and day of the week, as in cron, in the process's time zone."),
        referrers: z.boolean().prefault(true).describe('Fetch signatures, SBOMs and other referrers of these images as well.'),
      })
      .prefault({})
      .describe('Images that one replica fetches on a schedule, so that a moved tag is cached before a node pulls it.'),
    peers: z
      .strictObject({
        service: address.describe(
          'A DNS name that resolves to all replicas, such as that of their headless Service, and the port of registry.listen: host:port.',
        ),
      })
      .optional()
      .describe(
        'For several replicas: one of them downloads a blob, and the others read it from that replica during the download. Works with and without S3.',
      ),
    proxy: proxy.prefault('direct').describe('Proxy for every upstream: direct, or the URL of an HTTP or SOCKS5 proxy.'),
    onProxyFailure: z.enum(['fail', 'direct']).prefault('fail').describe('What to do when the proxy does not answer.'),
    upstreams: z
      .record(upstreamName, upstream.nullable())
      .prefault({})
      .describe(`Merged over the defaults (${Object.keys(DEFAULT_UPSTREAMS).join(', ')}) by name. null removes one.`),
    otherHosts: z
      .array(text)
      .prefault([...DEFAULT_OTHER_HOSTS])
      .describe(
        'Hosts of other registries to serve as /v2/<host>/…, without an entry in upstreams: globs; ! excludes. ["*"] is every host that is not internal; a host without wildcards may be internal.',
      ),
    defaultUpstream: upstreamName
      .optional()
      .describe(
        'The upstream for names that do not start with an upstream, such as dockerhub. For clients that cannot add a path (dockerd’s registry-mirrors).',
      ),
    hosted: hostedSchema,
    users: usersSchema,
    exposed: z
      .strictObject({
        listen: address.describe('HTTPS address.'),
        htpasswd: text.describe('A file of user:bcrypt lines, as created by htpasswd -B.'),
        tls: tls.describe('Certificate of this listener.'),
      })
      .optional()
      .describe('A second listener for clients outside the cluster, with TLS and passwords.'),
  })
  .transform((own, check) => {
    const upstreams: Record<string, Upstream> = {};
    for (const name of new Set([...Object.keys(DEFAULT_UPSTREAMS), ...Object.keys(own.upstreams)])) {
      const given = own.upstreams[name];
      if (given === null) continue;
      const { url, ...merged } = { ...DEFAULT_UPSTREAMS[name], ...given };
      if (url === undefined) {
        check.addIssue({
          code: 'custom',
          path: ['upstreams', name, 'url'],
          message: 'the URL of this upstream: it is not one of the defaults',
        });
        continue;
      }
      const effectiveProxy = merged.proxy ?? own.proxy;
      upstreams[name] = {
        hosts: [new URL(url).host],
        connections: 4,
        authHosts: [],
        credentials: [],
        onProxyFailure: own.onProxyFailure,
        tagTtl: own.cache.tagTtl,
        onDeleted: 'forget',
        ...merged,
        url,
        proxy: effectiveProxy,
        mirrors: (merged.mirrors ?? []).map((mirror) => ({
          authHosts: [],
          credentials: [],
          ...mirror,
          proxy: mirror.proxy ?? effectiveProxy,
          ca: mirror.ca ?? merged.ca,
        })),
      };
    }
    for (const name of Object.keys(own.hosted)) {
      if (upstreams[name] === undefined) continue;
      check.addIssue({ code: 'custom', path: ['hosted', name], message: 'a name that no upstream uses' });
    }
    if (own.defaultUpstream !== undefined && upstreams[own.defaultUpstream] === undefined) {
      check.addIssue({
        code: 'custom',
        path: ['defaultUpstream'],
        message: `the name of an upstream: ${Object.keys(upstreams).join(', ')}`,
      });
    }
    checkHosts({ upstreams, hosted: own.hosted }, (path, message) => check.addIssue({ code: 'custom', path, message }));
    return { ...own, upstreams };
  });

function checkHosts(
  sections: Record<string, Record<string, { hosts: string[] }>>,
  report: (path: string[], message: string) => void,
): void {
  const owners = new Map<string, string>();
  const all = Object.entries(sections).flatMap(([section, named]) =>
    Object.entries(named).map(([name, own]) => ({ section, name, ...own })),
  );
  for (const { section, name, hosts } of all) {
    for (const host of hosts) {
      const owner = owners.get(host);
      if (owner !== undefined) report([section, name, 'hosts'], `hosts that no other upstream has: ${host} already belongs to ${owner}`);
      owners.set(host, section === 'upstreams' ? `upstream ${name}` : `registry.${section}.${name}`);
    }
  }
}

export type { S3Config } from './s3-schema.ts';
export type RegistryConfig = z.output<typeof registrySchema>;
export { tls as tlsSchema };
export { DEFAULT_UPSTREAMS, type Upstream } from './upstream-schema.ts';
