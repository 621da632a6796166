import { readFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { Agent as SecureAgent, type AgentOptions } from 'node:https';
import { getCACertificates } from 'node:tls';
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { createRawSockets } from '../../http/raw/raw.ts';
import { fromProfile, fromRole, type Credentials } from './credentials.ts';
import type { S3Options } from './options.ts';

/** The maximum number of sockets to S3. Bytes from S3 go to disk at the disk's pace, so slow
 *  clients hold no sockets; but 256 downloads and their 64 helpers may run at once, and a call that
 *  waited for one of their sockets would take S3 for silent. */
const MAX_SOCKETS = 384;
const AGENT: AgentOptions = { keepAlive: true, maxSockets: MAX_SOCKETS, keepAliveMsecs: 10_000 };
const CONNECT_TIMEOUT_MS = 2000;
/** The timeout of a connection without a byte: a store may take a while to assemble a large
 *  object. */
const SOCKET_TIMEOUT_MS = 60_000;
/** How long credentials of files or of a custom provider are cached. */
const CREDENTIALS_KEPT_MS = 60_000;

/** Connections to S3, for the SDK and for presigned requests. */
export interface Connections {
  /** For `http:`. */
  agent: Agent;
  /** For `https:`. */
  secureAgent: SecureAgent;
  /** Undefined if the body has to go through Node's parser, as behind a proxy. */
  takeOver: ReturnType<typeof createRawSockets>['takeOver'];
}

export function createConnections({ ca, insecureSkipVerify = false, proxy }: S3Options): Connections {
  const tls: AgentOptions = {
    ...(ca === undefined ? {} : { ca: [...getCACertificates('default'), readFileSync(ca, 'utf8')] }),
    ...(insecureSkipVerify ? { rejectUnauthorized: false } : {}),
  };
  if (proxy !== undefined) {
    const proxyEnv = { HTTP_PROXY: proxy, HTTPS_PROXY: proxy };
    return {
      agent: new Agent({ ...AGENT, proxyEnv }),
      secureAgent: new SecureAgent({ ...AGENT, ...tls, proxyEnv }),
      takeOver: () => undefined,
    };
  }
  const { agent, takeOver } = createRawSockets(AGENT);
  return { agent, secureAgent: new SecureAgent({ ...AGENT, ...tls }), takeOver };
}

/** A client that signs for the region that `region` returns at the time of each call. */
export function createClient(
  options: S3Options,
  { endpoint, region, connections }: { endpoint: string | undefined; region: () => string; connections: Connections },
): S3Client {
  const { forcePathStyle, dualStack = false, fips = false, accelerate = false, userAgent } = options;
  const requestHandler = new NodeHttpHandler({
    connectionTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SOCKET_TIMEOUT_MS,
    httpAgent: connections.agent,
    httpsAgent: connections.secureAgent,
  });
  const credentials = credentialsOf(options, { region, requestHandler });
  return new S3Client({
    region: () => Promise.resolve(region()),
    forcePathStyle,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(dualStack ? { useDualstackEndpoint: true } : {}),
    ...(fips ? { useFipsEndpoint: true } : {}),
    ...(accelerate ? { useAccelerateEndpoint: true } : {}),
    ...(userAgent === undefined ? {} : { customUserAgent: userAgent }),
    maxAttempts: 1, // `Availability` decides about retries
    logger: { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing }, // the SDK's default is the console
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler,
  });
}

const nothing = (): void => undefined;

/** The credentials to sign with; undefined: those of the SDK's default chain. */
function credentialsOf(
  options: S3Options,
  { region, requestHandler }: { region: () => string; requestHandler: NodeHttpHandler },
): S3ClientConfig['credentials'] | undefined {
  const { credentials, profile, role } = options;
  let provider: (() => Promise<Credentials>) | undefined;
  if (credentials !== undefined) {
    provider = async () => ({ expiration: new Date(Date.now() + CREDENTIALS_KEPT_MS), ...(await credentials()) });
  } else if (profile !== undefined) {
    provider = fromProfile(profile);
  }
  return role === undefined ? provider : fromRole(role, { credentials: provider, region, requestHandler });
}
