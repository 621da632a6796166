import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createAuthority, issueLeaf } from '../webhook/certificates.ts';
import { connectKubernetes } from './client.ts';

const directory = await mkdtemp(join(tmpdir(), 'kubeconfig-'));
const authority = await createAuthority();
const leaf = await issueLeaf(authority, ['localhost']);
/** The last request, as received by the server. */
let seen: { request: IncomingMessage; body: string; clientName: string } | undefined;
const server = createServer({ ...leaf, ca: authority.cert, requestCert: true, rejectUnauthorized: false }, (request, response) => {
  let body = '';
  request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
  request.on('end', () => {
    seen = { request, body, clientName: String((request.socket as TLSSocket).getPeerCertificate().subject?.CN ?? '') };
    response.writeHead(request.url === '/missing' ? 404 : request.method === 'PATCH' ? 409 : 200, { 'content-type': 'application/json' });
    response.end('{"kind":"Thing"}');
  });
});
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `https://localhost:${(server.address() as AddressInfo).port}`;
after(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true });
});

async function kubeconfig(name: string, user: object, cluster: object = {}): Promise<string> {
  const path = join(directory, name);
  const content = {
    clusters: [
      {
        name: 'c',
        cluster: { server: `${url}/`, 'certificate-authority-data': Buffer.from(authority.cert).toString('base64'), ...cluster },
      },
    ],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  await writeFile(path, JSON.stringify(content));
  return path;
}

const signal = new AbortController().signal;

/** The headers and the client certificate of a request that goes out with this kubeconfig. */
async function ask(KUBECONFIG: string) {
  const kubernetes = await connectKubernetes({ KUBECONFIG, PATH: '/bin:/usr/bin' });
  assert.deepEqual(await kubernetes.get('/api', signal), { kind: 'Thing' });
  assert.equal(await kubernetes.get('/missing', signal), undefined);
  await kubernetes.close();
  assert.ok(seen !== undefined);
  return { ...seen.request.headers, clientName: seen.clientName };
}

test('a kubeconfig with a token, a token file, a password or an impersonated user authenticates as kubectl does', async () => {
  await writeFile(join(directory, 'a-token'), 'from-file\n');
  const rows: [string, object, Record<string, string>][] = [
    ['token', { token: 'abc' }, { authorization: 'Bearer abc' }],
    ['file', { tokenFile: 'a-token' }, { authorization: 'Bearer from-file' }],
    ['password', { username: 'me', password: 'pw' }, { authorization: `Basic ${Buffer.from('me:pw').toString('base64')}` }],
    ['as', { token: 'abc', as: 'jane', 'as-groups': ['a', 'b'] }, { 'impersonate-user': 'jane', 'impersonate-group': 'a, b' }],
  ];
  for (const [name, user, headers] of rows) {
    const got: Record<string, unknown> = await ask(await kubeconfig(name, user));
    for (const [key, value] of Object.entries(headers)) assert.equal(got[key], value, name);
  }
});

test('a client certificate is presented, from data or from files next to the kubeconfig', async () => {
  const client = await issueLeaf(authority, ['client']);
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const data = { 'client-certificate-data': base64(client.cert), 'client-key-data': base64(client.key) };
  assert.equal((await ask(await kubeconfig('data', data))).clientName, 'kube-registry webhook');
  await mkdir(join(directory, 'pki'));
  await writeFile(join(directory, 'pki/cert'), client.cert);
  await writeFile(join(directory, 'pki/key'), client.key);
  const files = { 'client-certificate': 'pki/cert', 'client-key': 'pki/key' };
  assert.equal((await ask(await kubeconfig('files', files))).clientName, 'kube-registry webhook');
});

test('a login plugin is run for its token, as EKS, GKE and AKS need it', async () => {
  const script = join(directory, 'login');
  const status = `'{"status":{"token":"'"$PREFIX-$1"'","expirationTimestamp":"2999-01-01T00:00:00Z"}}'`;
  await writeFile(script, `#!/bin/sh\necho run >> '${directory}/runs'\ntest -n "$KUBERNETES_EXEC_INFO" && echo ${status}\n`);
  await chmod(script, 0o755);
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: script,
    args: ['arg'],
    env: [{ name: 'PREFIX', value: 'issued' }],
  };
  assert.equal((await ask(await kubeconfig('exec', { exec }))).authorization, 'Bearer issued-arg');
  const failing = await kubeconfig('failing', { exec: { ...exec, command: '/bin/false' } });
  await assert.rejects(connectKubernetes({ KUBECONFIG: failing }), /the login plugin \/bin\/false failed/);
});

test('of several kubeconfigs the first that defines a name wins, and missing files are ignored', async () => {
  const first = await kubeconfig('first', { token: 'first' });
  const second = await kubeconfig('second', { token: 'second' }, { server: 'https://localhost:1' });
  assert.equal((await ask([join(directory, 'none'), first, second].join(delimiter))).authorization, 'Bearer first');
});

test('unsupported settings are reported, with an alternative', async () => {
  const other = await kubeconfig('other', { 'auth-provider': { name: 'gcp' } });
  await assert.rejects(connectKubernetes({ KUBECONFIG: other }), /auth-provider.*--pods/);
  await assert.rejects(connectKubernetes({ KUBECONFIG: join(directory, 'none') }), /neither a service account nor a kubeconfig/);
  await writeFile(join(directory, 'broken'), 'a: [');
  await assert.rejects(connectKubernetes({ KUBECONFIG: join(directory, 'broken') }), /is not YAML/);
});

test('an object is applied under the name of the webhook, and a conflict means: read it again', async () => {
  const kubernetes = await connectKubernetes({ KUBECONFIG: await kubeconfig('apply', { token: 'abc' }) });
  assert.equal(await kubernetes.apply('/thing', { metadata: { name: 'x' } }, signal), false);
  assert.equal(seen?.request.url, '/thing?fieldManager=kube-registry-webhook&force=true');
  assert.equal(seen.request.headers['content-type'], 'application/apply-patch+yaml');
  assert.equal(seen.body, '{"metadata":{"name":"x"}}');
  assert.equal(await kubernetes.replace('/thing', {}, signal), true);
  assert.equal(seen.request.headers['user-agent'], 'kube-registry-webhook');
  await kubernetes.close();
});
