import { z } from 'zod';
import { duration, httpUrl, proxy, text } from './scalars.ts';

const ecr = z.strictObject({
  region: text.optional().describe("Default: as the registry's host says, else as the AWS SDK finds it (AWS_REGION)."),
  roleArn: text.optional().describe('A role to assume first, such as one of the account that owns the registry.'),
});
const gcp = z.strictObject({
  keyFile: text
    .optional()
    .describe("A service account's key or a workload identity federation's configuration (JSON). Default: the metadata server's identity."),
});
const azure = z.strictObject({
  clientId: text.optional().describe("The client ID of a user-assigned managed identity, or of a workload identity's application."),
});

const LOGINS = 'one of: username and password (or their files), ecr, gcp, azure';
const credentials = z
  .strictObject({
    repositories: z
      .string()
      .default('')
      .describe('Prefix of the repositories that these credentials are for; the longest matching prefix wins.'),
    username: text.optional().describe('Or usernameFile.'),
    usernameFile: text.optional().describe('A file that holds the user name; read again when it changes.'),
    password: text.optional().describe('Or passwordFile. A password or a token.'),
    passwordFile: text.optional().describe('A file with that value; read again when it changes.'),
    ecr: ecr
      .optional()
      .describe(
        "Passwords that Amazon ECR issues to the pod's AWS identity (IRSA, Pod Identity, …), renewed before they expire; {} suffices.",
      ),
    gcp: gcp
      .optional()
      .describe("Passwords that Google Cloud issues to the pod's workload identity, for Artifact Registry and gcr.io; {} suffices."),
    azure: azure
      .optional()
      .describe("Passwords that Azure Container Registry issues to the pod's workload or managed identity; {} suffices."),
  })
  .superRefine((own, context) => {
    const issued = [own.ecr, own.gcp, own.azure].filter((login) => login !== undefined).length;
    const refuse = (message: string): void => context.addIssue({ code: 'custom', message, input: own });
    if (issued === 0) {
      if ((own.username === undefined) === (own.usernameFile === undefined)) refuse('one of username and usernameFile');
      if ((own.password === undefined) === (own.passwordFile === undefined)) refuse('one of password and passwordFile');
      return;
    }
    if (issued > 1 || [own.username, own.usernameFile, own.password, own.passwordFile].some((part) => part !== undefined)) refuse(LOGINS);
  });

const clientCertificate = z.strictObject({
  certFile: text.describe('The certificate chain, PEM.'),
  keyFile: text.describe('Its private key in PEM form.'),
});

const HEADER_FORM = 'the name of a header, such as X-Registry-Token';
const headers = z.record(z.string().regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, HEADER_FORM), text);

const mirror = z.strictObject({
  url: httpUrl.describe(
    'URL below which the mirror serves /v2/. If the mirror has a project for each registry, put the project after /v2/: https://harbor.example/v2/hub-proxy.',
  ),
  proxy: proxy.optional().describe("The proxy for this mirror, instead of the upstream's; direct, or a URL."),
  ns: text.optional().describe('Sent as ?ns= with every request, for mirrors that serve several registries under one path: docker.io.'),
  credentials: z
    .array(credentials)
    .optional()
    .describe(
      'Credentials for the mirror. A mirror without credentials is used only for repositories for which the upstream has no credentials.',
    ),
  authHosts: z.array(text).optional().describe('Hosts of token services that may see these credentials, besides the host of url.'),
  headers: headers.optional().describe('Headers sent with every request to the mirror itself.'),
  ca: text.optional().describe("A PEM file of certificate authorities to trust in addition to the usual ones. Default: the upstream's ca."),
  clientCertificate: clientCertificate.optional().describe('Client certificate presented to the mirror.'),
});

const CONNECTIONS_FORM = 'a whole number from 1 to 16';
export const upstreamSchema = z
  .strictObject({
    url: httpUrl.describe('URL below which the upstream serves /v2/.'),
    hosts: z.array(text).describe('Hosts in image names that refer to this upstream. Default: the host of url.'),
    defaultNamespace: text.describe('Prepended to names of one component: nginx → library/nginx.'),
    proxy: proxy.describe('Proxy for this upstream, instead of registry.proxy; direct, or a URL.'),
    onProxyFailure: z.enum(['fail', 'direct']).describe('What to do when the proxy does not answer, instead of registry.onProxyFailure.'),
    mirrors: z
      .array(mirror)
      .describe(
        'Tried in this order before url. Images for which this upstream has credentials come only from mirrors that have credentials too.',
      ),
    connections: z
      .int(CONNECTIONS_FORM)
      .min(1, CONNECTIONS_FORM)
      .max(16, CONNECTIONS_FORM)
      .describe('Number of parallel range requests for one large blob. Default: 4.'),
    authHosts: z.array(text).describe('Hosts of token services that may see the credentials, besides the host of url.'),
    headers: headers.describe('Headers sent with every request to url itself.'),
    ca: text.describe('A PEM file of certificate authorities to trust in addition to the usual ones.'),
    clientCertificate: clientCertificate.describe('Client certificate presented to the upstream.'),
    credentials: z
      .array(credentials)
      .describe(
        'Credentials for this upstream. Every client that reaches the registry can then read the images that these credentials can read.',
      ),
    tagTtl: duration.describe('Replaces cache.tagTtl for this upstream.'),
    onDeleted: z
      .enum(['forget', 'serve'])
      .describe(
        'The answer for a cached tag that the upstream has deleted. forget (the default): 404. serve: the cached image, for as long as it is kept.',
      ),
  })
  .partial();
type UpstreamInput = z.output<typeof upstreamSchema>;

type Credentials = z.output<typeof credentials>;
/** The keys that upstreams and mirrors have in common. */
interface Address {
  url: string;
  proxy: string;
  credentials: Credentials[];
  authHosts: string[];
  headers?: Record<string, string> | undefined;
  ca?: string | undefined;
  clientCertificate?: z.output<typeof clientCertificate> | undefined;
}
export interface Mirror extends Address {
  ns?: string | undefined;
}
export interface Upstream extends Address {
  hosts: string[];
  defaultNamespace?: string | undefined;
  onProxyFailure: 'fail' | 'direct';
  mirrors: Mirror[];
  connections: number;
  /** Milliseconds. */
  tagTtl: number;
  onDeleted: 'forget' | 'serve';
}

export const DEFAULT_UPSTREAMS: Record<string, UpstreamInput & { url: string }> = {
  dockerhub: {
    url: 'https://registry-1.docker.io',
    hosts: ['docker.io', 'index.docker.io', 'registry-1.docker.io'],
    defaultNamespace: 'library',
    authHosts: ['auth.docker.io'],
  },
  ghcr: { url: 'https://ghcr.io', hosts: ['ghcr.io'] },
  quay: { url: 'https://quay.io', hosts: ['quay.io'] },
  k8s: { url: 'https://registry.k8s.io', hosts: ['registry.k8s.io', 'k8s.gcr.io'] },
  gcr: { url: 'https://gcr.io', hosts: ['gcr.io'] },
};
