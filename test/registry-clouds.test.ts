import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { makeCertificate } from './support/certificate.ts';
import { startConnectProxy } from './support/connect-proxy.ts';
import { startDistribution } from './support/distribution.ts';
import { listenOnLoopback } from './support/http.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startMoto } from './support/moto.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

// Each cloud's login is issued by a double of the service that issues it (AWS: moto), and checked
// by a real registry.

const GOOGLE_TOKEN = 'google-access-token';
const FEDERATED_TOKEN = 'federated-access-token';
const AZURE_IDENTITY = 'azure-identity-token';
const AZURE_REFRESH_TOKEN = 'azure-refresh-token';
const AZURE_USER = '00000000-0000-0000-0000-000000000000';
const AZURE_SECRET_HEADER = 'identity-header';
const TENANT = '11111111-2222-3333-4444-555555555555';
const SERVICE_ACCOUNT_TOKEN = 'token-of-the-service-account';

const resources = new AsyncDisposableStack();
const image = makeImage({ architectures: ['amd64'], seed: 'clouds' });
/** Paths that the double of the metadata servers has answered. */
const asked: string[] = [];
let registry: ServingProgram;
/** Its pod has a workload identity of Azure. */
let workload: ServingProgram;

before(async () => {
  const directory = resources.use(await temporaryDirectory()).path;
  const data = join(directory, 'upstream');
  {
    await using open = await startDistribution({ directory: data });
    await pushImage(open.url, 'team/app', '1', image);
  }
  const withLogin = async (user: string, password: string) =>
    resources.use(await startDistribution({ directory: data, auth: { htpasswd: { [user]: password } } }));
  const moto = resources.use(await startMoto());
  const ecr = await withLogin('AWS', '123456789012-auth-token');
  const google = await withLogin('oauth2accesstoken', GOOGLE_TOKEN);
  const federated = await withLogin('oauth2accesstoken', FEDERATED_TOKEN);
  const behind = await withLogin(AZURE_USER, AZURE_REFRESH_TOKEN);
  const azure = resources.use(await listenOnLoopback(createServer(azureRegistry(new URL(behind.url)))));
  const metadata = resources.use(await listenOnLoopback(createServer(answerMetadata)));
  const keyFile = join(directory, 'federation.json');
  const subject = join(directory, 'subject');
  await writeFile(subject, 'subject-token');
  await writeFile(keyFile, JSON.stringify(federation(`${metadata.url}/v1/token`, subject)));
  registry = resources.use(
    await startRegistry(
      {
        storage: { filesystem: { directory: join(directory, 'data') } },
        cache: { tagTtl: '0ms' },
        upstreams: {
          ecr: { url: ecr.url, credentials: [{ ecr: { region: 'eu-west-1' } }] },
          role: {
            url: ecr.url,
            hosts: ['role.example'],
            credentials: [{ repositories: 'team/', ecr: { region: 'eu-west-1', roleArn: 'arn:aws:iam::123456789012:role/puller' } }],
          },
          google: { url: google.url, credentials: [{ gcp: {} }] },
          federated: { url: federated.url, credentials: [{ gcp: { keyFile } }] },
          azure: { url: azure.url, credentials: [{ azure: {} }] },
          refused: { url: azure.url, hosts: ['refused.example'], credentials: [{ azure: { clientId: 'unknown' } }] },
        },
      },
      {
        env: {
          ...moto.env,
          GCE_METADATA_HOST: new URL(metadata.url).host,
          IDENTITY_ENDPOINT: `${metadata.url}/msi/token`,
          IDENTITY_HEADER: AZURE_SECRET_HEADER,
        },
      },
    ),
  );
  workload = await startWithWorkloadIdentity(directory, azure.url);
});
after(() => resources.disposeAsync());

/** The environment that Azure's webhook (azure-workload-identity) gives to a pod. Azure's library
 *  sends its requests to login.microsoftonline.com; a proxy redirects them to this test. */
async function startWithWorkloadIdentity(directory: string, azure: string): Promise<ServingProgram> {
  const tls = await makeCertificate(directory, ['login.microsoftonline.com']);
  const [cert, key] = await Promise.all([readFile(tls.certificate), readFile(tls.key)]);
  const login = resources.use(await listenOnLoopback(createSecureServer({ cert, key }, answerLogin)));
  const proxy = resources.use(await startConnectProxy(login.port));
  const file = join(directory, 'azure-identity-token');
  await writeFile(file, SERVICE_ACCOUNT_TOKEN);
  const env = {
    AZURE_TENANT_ID: TENANT,
    AZURE_CLIENT_ID: 'client-of-the-pod',
    AZURE_FEDERATED_TOKEN_FILE: file,
    HTTPS_PROXY: proxy.url,
    NODE_EXTRA_CA_CERTS: tls.certificate,
  };
  const upstreams = { azure: { url: azure, credentials: [{ azure: {} }] } };
  const storage = { filesystem: { directory: join(directory, 'workload') } };
  return resources.use(await startRegistry({ storage, upstreams }, { env }));
}

/** Microsoft Entra: a token for the token of a ServiceAccount (OAuth 2.0 client credentials with a
 *  federated assertion). */
function answerLogin(incoming: IncomingMessage, response: ServerResponse): void {
  let body = '';
  incoming.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
  incoming.on('end', () => {
    const { pathname } = new URL(incoming.url ?? '', 'http://login');
    asked.push(pathname);
    const form = new URLSearchParams(body);
    const valid =
      pathname === `/${TENANT}/oauth2/v2.0/token` &&
      form.get('client_assertion') === SERVICE_ACCOUNT_TOKEN &&
      form.get('client_id') === 'client-of-the-pod' &&
      form.get('scope')?.includes('https://containerregistry.azure.net/.default') === true;
    const answer = valid ? { access_token: AZURE_IDENTITY, expires_in: 3600, token_type: 'Bearer' } : { error: 'invalid_request' };
    response.writeHead(valid ? 200 : 400, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  });
}

function federation(tokenUrl: string, file: string) {
  return {
    type: 'external_account',
    audience: '//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster',
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    token_url: tokenUrl,
    credential_source: { file },
  };
}

/** Google's metadata server, a security token service, and the managed identity endpoint of
 *  Azure. */
function answerMetadata(incoming: IncomingMessage, response: ServerResponse): void {
  const { pathname, searchParams } = new URL(incoming.url ?? '', 'http://metadata');
  incoming.resume();
  asked.push(pathname);
  const answer = (status: number, value: unknown): void =>
    void response.writeHead(status, { 'content-type': 'application/json', 'metadata-flavor': 'Google' }).end(JSON.stringify(value));
  if (pathname === '/msi/token') {
    const known = incoming.headers['x-identity-header'] === AZURE_SECRET_HEADER && searchParams.get('client_id') !== 'unknown';
    if (!known) return answer(400, { error: 'invalid_request', error_description: 'Identity not found' });
    const expires_on = String(Math.floor(Date.now() / 1000) + 3600);
    return answer(200, { access_token: AZURE_IDENTITY, expires_on, resource: searchParams.get('resource'), token_type: 'Bearer' });
  }
  if (pathname === '/v1/token') {
    const issued_token_type = 'urn:ietf:params:oauth:token-type:access_token';
    return answer(200, { access_token: FEDERATED_TOKEN, issued_token_type, token_type: 'Bearer', expires_in: 3600 });
  }
  if (pathname.endsWith('/token')) return answer(200, { access_token: GOOGLE_TOKEN, expires_in: 3599, token_type: 'Bearer' });
  answer(200, {});
}

/** A registry of Azure: exchanges tokens, and is a registry otherwise. */
function azureRegistry(behind: URL) {
  return (incoming: IncomingMessage, response: ServerResponse): void => {
    if (incoming.url === '/oauth2/exchange') {
      let body = '';
      incoming.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
      incoming.on('end', () => {
        asked.push(incoming.url ?? '');
        const form = new URLSearchParams(body);
        const valid = form.get('access_token') === AZURE_IDENTITY && form.get('service') === incoming.headers.host;
        response.writeHead(valid ? 200 : 401).end(valid ? JSON.stringify({ refresh_token: AZURE_REFRESH_TOKEN }) : '');
      });
      return;
    }
    const { method, url: path, headers } = incoming;
    const forwarded = request({ hostname: behind.hostname, port: behind.port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    incoming.pipe(forwarded);
  };
}

function pull(upstream: string, { url } = registry): Promise<Response> {
  return fetch(`${url}/v2/${upstream}/team/app/manifests/1`);
}

for (const upstream of ['ecr', 'role', 'google', 'federated', 'azure']) {
  test(`an image is pulled with a password that a cloud issues: ${upstream}`, async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => pull(upstream)));
    assert.deepEqual(
      answers.map(({ status }) => status),
      Array.from(answers, () => 200),
    );
  });
}

test('an image is pulled with a password that Azure issues for the workload identity of the pod', async () => {
  const answer = await pull('azure', workload);
  assert.equal(answer.status, 200, await answer.text());
  assert.ok(asked.includes(`/${TENANT}/oauth2/v2.0/token`));
});

test('a cloud is asked once for all waiting pulls', () => {
  const count = (path: string) => asked.filter((one) => one === path).length;
  assert.equal(count('/computeMetadata/v1/instance/service-accounts/default/token'), 1);
  assert.equal(count('/v1/token'), 1);
  assert.equal(count('/oauth2/exchange'), 2, 'once by each registry');
});

test('if a cloud refuses an identity, the error says what to check, and contains no secret', async () => {
  const answer = await pull('refused');
  assert.equal(answer.status, 502);
  const text = await answer.text();
  assert.match(text, /Azure Container Registry \(127\.0\.0\.1:\d+\) issues no password \(.+\): check the pod's Azure identity/);
  assert.ok(![text, JSON.stringify(registry.log())].some((line) => line.includes(AZURE_SECRET_HEADER) || line.includes(AZURE_IDENTITY)));
});
