import type { TokenCredential } from '@azure/identity';
import type { Dispatcher } from 'undici';
import { readAll } from '../io/body.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import type { LogIn, Login } from './short-lived-login.ts';

export interface AzureOptions {
  /** The client ID of a user-assigned managed identity, or of the application of a workload
   *  identity. */
  clientId?: string | undefined;
}

/** The token audience for registries whose host has this suffix (KnownContainerRegistryAudience of
 *  Azure's SDK). All others use the registry's own audience, which is also accepted by registries
 *  that refuse tokens for the resource manager. */
const AUDIENCES: readonly (readonly [suffix: string, audience: string])[] = [
  ['.azurecr.cn', 'https://management.chinacloudapi.cn'],
  ['.azurecr.us', 'https://management.usgovcloudapi.net'],
];
const DEFAULT_AUDIENCE = 'https://containerregistry.azure.net';
/** "Authenticate with an Azure container registry": the user name for a refresh token. */
const USERNAME = '00000000-0000-0000-0000-000000000000';
/** The lifetime of a refresh token without an expiry, in ms; Azure documents 3 hours. */
const DEFAULT_LIFE_MS = 3_600_000;
const MAX_ANSWER_SIZE = 256 * 1024;

/** Logs in to Azure Container Registry: exchanges a token of the pod's identity for a refresh token
 *  of the registry ("Azure Container Registry integration with Azure Active Directory": POST
 *  /oauth2/exchange).
 *  @param openDispatcher opens connections to the registry */
export function azureLogin(registry: URL, { clientId }: AzureOptions, openDispatcher: () => Promise<Dispatcher>): LogIn {
  const audience = AUDIENCES.find(([suffix]) => registry.hostname.endsWith(suffix))?.[1] ?? DEFAULT_AUDIENCE;
  let credential: Promise<TokenCredential> | undefined;
  return async (signal) => {
    credential ??= createCredential(clientId);
    const token = await (await credential).getToken(`${audience}/.default`, { abortSignal: signal });
    if (token === null) throw new Error('the identity has no token');
    return exchange(registry, token.token, await openDispatcher(), signal);
  };
}

/** Looks for a workload identity first, then for a managed identity. */
async function createCredential(clientId: string | undefined): Promise<TokenCredential> {
  const { DefaultAzureCredential } = await import('@azure/identity');
  return new DefaultAzureCredential(
    clientId === undefined ? {} : { managedIdentityClientId: clientId, workloadIdentityClientId: clientId },
  );
}

async function exchange(registry: URL, token: string, dispatcher: Dispatcher, signal: AbortSignal): Promise<Login> {
  const form = new URLSearchParams({ grant_type: 'access_token', service: registry.host, access_token: token });
  const { statusCode, body } = await dispatcher.request({
    origin: registry.origin,
    path: '/oauth2/exchange',
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json', 'user-agent': 'kube-registry' },
    body: form.toString(),
    signal,
  });
  const answer = await readAll(body, MAX_ANSWER_SIZE);
  if (statusCode !== 200) throw new Error(`${registry.host} answers /oauth2/exchange with ${statusCode}`);
  const password = textOf(fieldsOf(JSON.parse(answer?.toString() ?? ''))['refresh_token']);
  if (password === undefined || password === '') throw new Error('the answer holds no token');
  return { username: USERNAME, password, expires: expiryOf(password) ?? Date.now() + DEFAULT_LIFE_MS };
}

/** The `exp` of a JSON Web Token (RFC 7519 §4.1.4), in ms since 1970. */
function expiryOf(token: string): number | undefined {
  try {
    const { exp } = fieldsOf(JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()));
    return typeof exp === 'number' && exp > 0 ? exp * 1000 : undefined;
  } catch {
    return undefined; // not every token says when it ends
  }
}
