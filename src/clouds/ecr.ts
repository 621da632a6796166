import type { fromTemporaryCredentials as FromTemporaryCredentials } from '@aws-sdk/credential-providers';
import type { LogIn, Login } from './short-lived-login.ts';

export interface EcrOptions {
  /** The registry's region, such as `eu-west-1`. Default: the region in its host name, else the
   *  region that the AWS SDK finds. */
  region?: string | undefined;
  /** The role to assume; its trust policy must name the identity that the SDK's default chain
   *  finds. */
  roleArn?: string | undefined;
}

/** `123456789012.dkr.ecr.eu-west-1.amazonaws.com`, and its forms for FIPS, China and IPv6 ("Amazon
 *  ECR endpoints and quotas"). */
const PRIVATE_HOST = /^\d{12}\.dkr[.-]ecr(?:-fips)?\.(?<region>[a-z0-9-]+)\./;
const PUBLIC_HOST = 'public.ecr.aws';
/** Amazon ECR Public issues tokens in this region alone. */
const PUBLIC_REGION = 'us-east-1';
const SESSION_NAME = 'kube-registry';
/** The lifetime of a password without an expiry: GetAuthorizationToken documents 12 hours. */
const DEFAULT_LIFE_MS = 12 * 3_600_000;

/** Logs in to Amazon ECR by GetAuthorizationToken (Amazon ECR API reference), with the identity
 *  that the AWS SDK's default chain finds: IRSA, EKS Pod Identity, environment, shared files,
 *  instance profile. */
export function ecrLogin(registry: URL, { region, roleArn }: EcrOptions): LogIn {
  const isPublic = registry.hostname === PUBLIC_HOST;
  const place = region ?? (isPublic ? PUBLIC_REGION : PRIVATE_HOST.exec(registry.hostname)?.groups?.['region']);
  return async (signal) => {
    const client = { ...(place === undefined ? {} : { region: place }), ...(roleArn === undefined ? {} : await assume(roleArn)) };
    return parseToken(await (isPublic ? askPublic(client, signal) : askPrivate(client, signal)));
  };
}

interface ClientOptions {
  region?: string;
  /** Default: what the SDK's default chain finds. */
  credentials?: ReturnType<typeof FromTemporaryCredentials>;
}

async function assume(roleArn: string): Promise<ClientOptions> {
  const { fromTemporaryCredentials } = await import('@aws-sdk/credential-providers');
  return { credentials: fromTemporaryCredentials({ params: { RoleArn: roleArn, RoleSessionName: SESSION_NAME } }) };
}

interface AuthorizationData {
  authorizationToken?: string | undefined;
  expiresAt?: Date | undefined;
}

async function askPrivate(options: ClientOptions, abortSignal: AbortSignal): Promise<AuthorizationData> {
  const { ECRClient, GetAuthorizationTokenCommand } = await import('@aws-sdk/client-ecr');
  const client = new ECRClient(options);
  try {
    const { authorizationData = [] } = await client.send(new GetAuthorizationTokenCommand({}), { abortSignal });
    return authorizationData[0] ?? {};
  } finally {
    client.destroy();
  }
}

async function askPublic(options: ClientOptions, abortSignal: AbortSignal): Promise<AuthorizationData> {
  const { ECRPUBLICClient, GetAuthorizationTokenCommand } = await import('@aws-sdk/client-ecr-public');
  const client = new ECRPUBLICClient(options);
  try {
    return (await client.send(new GetAuthorizationTokenCommand({}), { abortSignal })).authorizationData ?? {};
  } finally {
    client.destroy();
  }
}

/** The token is `AWS:PASSWORD` in base64. */
function parseToken({ authorizationToken = '', expiresAt }: AuthorizationData): Login {
  const pair = Buffer.from(authorizationToken, 'base64').toString();
  const colon = pair.indexOf(':');
  if (colon < 1) throw new Error('the answer holds no token');
  return {
    username: pair.slice(0, colon),
    password: pair.slice(colon + 1),
    expires: expiresAt?.getTime() ?? Date.now() + DEFAULT_LIFE_MS,
  };
}
