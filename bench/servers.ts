import { randomBytes } from 'node:crypto';
import { link, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCertificate } from '../test/support/certificate.ts';
import { startDistribution, type Distribution } from '../test/support/distribution.ts';
import { sha256, type TestImage } from '../test/support/image.ts';
import { startMihomo } from '../test/support/mihomo.ts';
import { accepts, startProcess } from '../test/support/process.ts';
import { startAgent, startRegistry, type ServingProgram } from '../test/support/program.ts';
import { freePort, temporaryDirectory } from '../test/support/temporary.ts';
import type { Versitygw } from '../test/support/versitygw.ts';
import { debianTool } from '../test/tools/tools.ts';

/** The repository of all blobs and images of the benchmark, by its name upstream. */
const REPOSITORY = 'library/bench';

/** nginx with one worker over files in the layout of a registry: the upstream of the benchmark, and
 *  the reference for a static server. */
export interface Upstream {
  url: string;
  /** 127.0.0.1:PORT */
  host: string;
  /** Over HTTPS: the PEM file of the authority that signed its certificate, for 127.0.0.1 and
   *  FAR_NAME. */
  ca?: string;
  /** Adds a blob of random bytes, and returns its digest. */
  addBlob(size: number): Promise<string>;
  /** Serves a file of the same file system as a blob, from the same pages in memory. */
  linkBlob(digest: string, path: string): Promise<void>;
  /** Bytes of a blob that it has sent so far, in completed responses. */
  sent(digest: string): Promise<number>;
  /** The process ID of its worker. */
  worker(this: void): Promise<number>;
}

/** The upstream's name for clients behind a proxy, which only the proxy can resolve: Go programs
 *  never send requests to 127.0.0.1 through a proxy. */
export const FAR_NAME = 'upstream.test';

export interface UpstreamOptions {
  /** Images by tag. */
  images?: Record<string, TestImage>;
  /** Serve over HTTPS. */
  secure?: boolean;
  /** Require a token for blobs and manifests, from the token service at this host:port, which is
   *  this server too. */
  tokensFrom?: string;
  /** Where to listen. */
  host?: string;
}

export async function startUpstream(stack: AsyncDisposableStack, options: UpstreamOptions = {}): Promise<Upstream> {
  const { images = {}, secure = false, host = `127.0.0.1:${await freePort()}` } = options;
  const { path: directory } = stack.use(await temporaryDirectory());
  const repository = join(directory, 'root/v2', REPOSITORY);
  await Promise.all(['blobs', 'manifests'].map((name) => mkdir(join(repository, name), { recursive: true })));
  for (const [tag, { root, platforms }] of Object.entries(images)) {
    for (const { config, layers } of platforms)
      for (const { digest, bytes } of [config, ...layers]) await writeFile(join(repository, 'blobs', digest), bytes);
    for (const reference of [tag, root.digest]) await writeFile(join(repository, 'manifests', reference), root.bytes);
  }
  const certificate = secure ? await makeCertificate(directory, [FAR_NAME]) : undefined;
  const file = join(directory, 'nginx.conf');
  await writeFile(file, nginxConfiguration({ directory, host, images, certificate, tokensFrom: options.tokensFrom }));
  const args = ['-p', directory, '-c', file, '-e', join(directory, 'error.log')];
  const { pid } = stack.use(await startProcess({ command: await debianTool('nginx'), args, ready: () => accepts(host) }));
  return {
    url: `${secure ? 'https' : 'http'}://${host}`,
    host,
    ...(certificate === undefined ? {} : { ca: certificate.certificate }),
    async addBlob(size) {
      const bytes = randomBytes(size);
      const digest = sha256(bytes);
      await writeFile(join(repository, 'blobs', digest), bytes);
      return digest;
    },
    linkBlob: (digest, path) => link(path, join(repository, 'blobs', digest)),
    async sent(digest) {
      const lines = (await readFile(join(directory, 'access.log'), 'utf8')).split('\n').filter((line) => line.includes(digest));
      return lines.reduce((sum, line) => sum + Number(line.split(' ', 1)[0]), 0);
    },
    worker: async () => Number(await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')),
  };
}

interface NginxOptions {
  directory: string;
  host: string;
  images: Record<string, TestImage>;
  certificate: { certificate: string; key: string } | undefined;
  tokensFrom: string | undefined;
}

/** Starts mihomo, which resolves the upstream's name. @returns host:port, for HTTP and SOCKS5 */
export async function startProxy(stack: AsyncDisposableStack): Promise<string> {
  const port = await freePort();
  stack.use(await startMihomo({ 'mixed-port': port, mode: 'direct', 'log-level': 'error', hosts: { [FAR_NAME]: '127.0.0.1' } }));
  return `127.0.0.1:${port}`;
}

function nginxConfiguration({ directory, host, images, certificate, tokensFrom }: NginxOptions): string {
  const tls =
    certificate === undefined
      ? ''
      : `ssl_certificate ${certificate.certificate}; ssl_certificate_key ${certificate.key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:1m;`;
  const scheme = certificate === undefined ? 'http' : 'https';
  const challenge =
    tokensFrom === undefined ? '' : `if ($http_authorization = '') { return 401; } add_header WWW-Authenticate $challenge always;`;
  const digests = Object.entries(images).flatMap(([tag, { root }]) => [`~/${tag}$ ${root.digest};`, `~/${root.digest}$ ${root.digest};`]);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${directory}/temporary;`);
  return `daemon off; user root; worker_processes 1; pid ${directory}/pid;
events {}
http {
  ${temporary.join(' ')}
  sendfile on; tcp_nopush on; keepalive_requests 1000000;
  log_format line '$body_bytes_sent $uri';
  map $uri $manifest { default ''; ${digests.join(' ')} }
  map $http_authorization $challenge { default ''; '' 'Bearer realm="${scheme}://${tokensFrom}/token",service="bench",scope="repository:${REPOSITORY}:pull"'; }
  server {
    listen ${host}${certificate === undefined ? '' : ' ssl'};
    ${tls}
    root ${directory}/root;
    access_log off;
    location = /token { default_type application/json; return 200 '{"token":"t","expires_in":300}'; }
    location = /v2/ { default_type application/json; ${challenge} return 200 '{}'; }
    location ~ /blobs/ { ${challenge} access_log ${directory}/access.log line; }
    location ~ /manifests/ {
      ${challenge}
      default_type application/vnd.oci.image.manifest.v1+json;
      add_header Docker-Content-Digest $manifest;
    }
  }
}
`;
}

/** A pull-through cache, whose blobs and manifests are at these URLs. */
export interface Contestant {
  /** 127.0.0.1:PORT */
  host: string;
  /** As in image names: host and path. */
  image: string;
  blob: (digest: string) => string;
  manifest: (reference: string) => string;
  /** The process ID; absent: its CPU time is not measured. */
  pid?: () => number;
}

function contestant({ url, host }: { url: string; host: string }, upstream: string | undefined): Contestant {
  const path = upstream === undefined ? REPOSITORY : `${upstream}/${REPOSITORY}`;
  return {
    host,
    image: `${host}/${path}`,
    blob: (digest) => `${url}/v2/${path}/blobs/${digest}`,
    manifest: (reference) => `${url}/v2/${path}/manifests/${reference}`,
  };
}

export function direct(upstream: Pick<Upstream, 'url' | 'host'>): Contestant {
  return contestant(upstream, undefined);
}

export interface OwnRegistry extends Contestant {
  program: ServingProgram;
  /** The directory of its local tier or, without S3, of its store. */
  directory: string;
}

export interface OwnOptions {
  upstream: Pick<Upstream, 'url' | 'ca'>;
  /** The URL of a proxy to the upstream. */
  proxy?: string | undefined;
  s3?: Versitygw;
  /** Redirect these clients to S3 for blobs. */
  redirect?: 'all' | 'agents';
  /** Merged over the configuration of the registry. */
  rest?: Record<string, unknown>;
}

/** Starts this registry in the usual way. */
export async function startOwn(
  stack: AsyncDisposableStack,
  { upstream: { url, ca }, proxy, s3, redirect, rest = {} }: OwnOptions,
): Promise<OwnRegistry> {
  const { path } = stack.use(await temporaryDirectory());
  const directory = join(path, 'data');
  const storage = s3 === undefined ? { filesystem: { directory } } : { s3: storageS3(s3, redirect) };
  const local = { directory, maxSize: '20GiB' };
  const dockerhub = { url, ...(ca === undefined ? {} : { ca }), ...(proxy === undefined ? {} : { proxy }) };
  const program = await startRegistry({ storage, local, upstreams: { dockerhub }, ...rest });
  stack.use(program);
  return { ...contestant(program, 'dockerhub'), program, directory, pid: () => program.pid };
}

function storageS3(
  { endpoint, bucket, region, accessKeyId, secretAccessKey }: Versitygw,
  clients: OwnOptions['redirect'],
): Record<string, unknown> {
  return { endpoint, bucket, region, accessKeyId, secretAccessKey, ...(clients === undefined ? {} : { redirect: { endpoint, clients } }) };
}

/** Starts an agent of this registry, which may also read from the upstream. @param agent more of its
 *  configuration */
export async function startOwnAgent(
  stack: AsyncDisposableStack,
  { own, upstream: { url } }: { own: OwnRegistry; upstream: Upstream },
  agent: Record<string, unknown> = {},
): Promise<ServingProgram> {
  const configuration = { registry: { upstreams: { dockerhub: { url } } } };
  return stack.use(await startAgent({ registry: own.program.url, ...agent }, configuration));
}

/** The Distribution project's registry as a pull-through cache, without an access log. */
export async function startOther(
  stack: AsyncDisposableStack,
  { upstream: { url, ca }, proxy, s3 }: Pick<OwnOptions, 'upstream' | 'proxy' | 's3'>,
): Promise<Contestant & { distribution: Distribution }> {
  const quiet = { log: { level: 'error', accesslog: { disabled: true } } };
  const env = {
    ...(ca === undefined ? {} : { SSL_CERT_FILE: ca }),
    ...(proxy === undefined ? {} : { HTTPS_PROXY: proxy, HTTP_PROXY: proxy }),
  };
  const distribution = await startDistribution({ proxyOf: url, configuration: quiet, env, ...(s3 === undefined ? {} : { s3 }) });
  stack.use(distribution);
  return { ...contestant(distribution, undefined), distribution, pid: () => distribution.pid() };
}
