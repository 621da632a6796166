import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { makeCertificate } from './support/certificate.ts';
import { startControlPlane } from './support/control-plane.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { createReviewer, REVIEW, startWebhook, type RunningWebhook } from './support/webhook.ts';

// Every pod of the cluster reaches the webhook's port, and API servers must not notice.

/** A review of about this many bytes: a pod with large annotations, which is rewritten
 *  nevertheless. */
function reviewOf(bytes: number): string {
  const review = JSON.parse(REVIEW) as { request: { object: { metadata?: unknown } } };
  review.request.object.metadata = { managedFields: [{ fieldsV1: 'x'.repeat(bytes) }] };
  return JSON.stringify(review);
}

const REWRITTEN = /127\.0\.0\.1:25000\/dockerhub\/library\/nginx/;
const patchOf = (response: { patch?: string }): string => Buffer.from(response.patch ?? '', 'base64').toString();

async function openTls({ port }: RunningWebhook, options: object = {}): Promise<TLSSocket> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  await once(socket, 'secureConnect');
  return socket;
}

const HEAD = 'POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';

test('a large pod is reviewed like a small one, and one that is larger than any pod is refused before it is read', async () => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  await using webhook = await startWebhook({ tls: reviewer.tls });
  for (const bytes of [10, 100_000, 1_500_000]) {
    const { status, response } = await reviewer.post(webhook, reviewOf(bytes));
    assert.equal(status, 200, `${bytes} bytes`);
    assert.match(patchOf(response), REWRITTEN);
  }
  const many = await Promise.all(Array.from({ length: 20 }, () => reviewer.post(webhook, reviewOf(300_000))));
  for (const { response } of many) assert.match(patchOf(response), REWRITTEN);

  const chunked = await openTls(webhook);
  const [body] = [reviewOf(200_000)];
  chunked.write(`${HEAD}transfer-encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`);
  const [answered] = (await once(chunked, 'data')) as [Buffer];
  assert.match(answered.toString(), /^HTTP\/1\.1 200 .*"patch"/s, 'a body without a length too');
  chunked.destroy();

  const refused = await openTls(webhook);
  refused.write(`${HEAD}content-length: 8000000\r\n\r\n`);
  const [early] = (await once(refused, 'data')) as [Buffer];
  assert.match(early.toString(), /^HTTP\/1\.1 413 .*"allowed":true/s, 'without a byte of its body');
  refused.destroy();

  const slow = await openTls(webhook);
  slow.write(`${HEAD}content-length: 1000000\r\n\r\n{`);
  const [late] = (await once(slow, 'data')) as [Buffer];
  assert.match(late.toString(), /^HTTP\/1\.1 408 /, 'a body that does not come');
  slow.destroy();
});

test('an own limit of the size holds', async () => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  await using webhook = await startWebhook({ tls: reviewer.tls, maxReviewSize: '8KiB' });
  assert.equal((await reviewer.post(webhook, reviewOf(1_000))).status, 200);
  const { status, response } = await reviewer.post(webhook, reviewOf(9_000));
  assert.deepEqual([status, response.allowed, response.patch], [413, true, undefined]);
});

interface Attack {
  name: string;
  /** The size of each review. */
  bytes: number;
  /** A new connection for each request. */
  reconnects?: boolean;
}

const ATTACKER = `
const { Agent, request } = require('node:https');
const { port, bytes, reconnects } = JSON.parse(process.argv[1]);
const pod = { metadata: { managedFields: [{ fieldsV1: 'x'.repeat(bytes) }] }, spec: { containers: [{ name: 'a', image: 'nginx' }] } };
const body = Buffer.from(reconnects ? 'nothing' : JSON.stringify({ request: { uid: 'u', operation: 'CREATE', object: pod } }));
const agent = new Agent({ keepAlive: !reconnects, maxSockets: 50, rejectUnauthorized: false });
const headers = { 'content-type': 'application/json', 'content-length': body.length };
function next() {
  const again = () => setTimeout(next, 1);
  // Another address than the API server's, as a pod has.
  request({ host: '127.0.0.1', localAddress: '127.0.0.2', port, path: '/mutate', method: 'POST', agent, headers })
    .on('response', (response) => response.resume().on('close', again)).on('error', again).end(body);
}
for (let connection = 0; connection < 50; connection++) next();
`;

/** A process that sends one request after the other over 50 connections. It runs at a low priority,
 *  since it acts as another machine. */
function startAttack({ port }: RunningWebhook, { bytes, reconnects = false }: Attack): ChildProcess {
  return spawn('nice', ['-n', '19', process.execPath, '-e', ATTACKER, JSON.stringify({ port, bytes, reconnects })], { stdio: 'ignore' });
}

test('promise W1: under 50 connections of an attacker reviews of the API server are answered in its time', async (context) => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  await using webhook = await startWebhook({ tls: reviewer.tls });
  await reviewer.post(webhook, REVIEW);
  const attacks: Attack[] = [
    { name: 'reviews of 8 MiB', bytes: 8_000_000 },
    { name: 'reviews of 2 MB', bytes: 2_000_000 },
    { name: 'reviews of 60 kB', bytes: 60_000 },
    { name: 'no reviews, over new connections', bytes: 0, reconnects: true },
  ];
  for (const own of attacks) {
    const attacker = startAttack(webhook, own);
    await delay(1_000);
    const times: number[] = [];
    for (const end = performance.now() + 2_000; performance.now() < end; await delay(20)) {
      const started = performance.now();
      const { response } = await reviewer.post(webhook, REVIEW);
      times.push(performance.now() - started);
      assert.match(patchOf(response), REWRITTEN, own.name);
    }
    attacker.kill('SIGKILL');
    await once(attacker, 'exit');
    times.sort((one, other) => one - other);
    const at = (share: number): string => `${Math.round(times[Math.floor(times.length * share)] ?? Number.NaN)} ms`;
    context.diagnostic(`${own.name}: ${times.length} reviews, median ${at(0.5)}, 99th percentile ${at(0.99)}`);
    // API servers wait 2 s. The machine may be busy with other things, so the figures are only
    // printed.
    const late = times.filter((time) => time > 2_000).length;
    assert.ok(late <= Math.max(1, times.length / 50), `${own.name}: ${late} of ${times.length} took more than 2 s`);
  }
  const { resident } = await webhook.memory();
  context.diagnostic(`${Math.round(resident / 2 ** 20)} MiB resident`);
  assert.ok(resident < 512 * 2 ** 20, `${Math.round(resident / 2 ** 20)} MiB; the chart allows 512`);
});

test('an API server with a certificate is accepted, and no client without one', async () => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  await mkdir(join(temporary.path, 'client'));
  await mkdir(join(temporary.path, 'stranger'));
  const client = await makeCertificate(join(temporary.path, 'client'));
  const stranger = await makeCertificate(join(temporary.path, 'stranger'));
  await using webhook = await startWebhook({ tls: reviewer.tls, clientCaBundle: await readFile(client.certificate, 'utf8') });
  await assert.rejects(reviewer.post(webhook, REVIEW), 'a pod');
  const refused = await openTls(webhook, { cert: await readFile(stranger.certificate), key: await readFile(stranger.key) });
  refused.write(`${HEAD}content-length: ${REVIEW.length}\r\n\r\n${REVIEW}`);
  const ended = await Promise.race([once(refused, 'data').then(() => 'answered'), once(refused, 'close').then(() => 'closed')]).catch(
    () => 'closed',
  );
  assert.equal(ended, 'closed', 'a certificate of another authority');

  // As docs/install.md says: kube-apiserver --admission-control-config-file.
  const kubeconfig = join(temporary.path, 'admission-kubeconfig');
  const user = { 'client-certificate': client.certificate, 'client-key': client.key };
  await writeFile(kubeconfig, JSON.stringify({ apiVersion: 'v1', kind: 'Config', users: [{ name: `localhost:${webhook.port}`, user }] }));
  const admission = join(temporary.path, 'admission.yaml');
  const plugin = { apiVersion: 'apiserver.config.k8s.io/v1', kind: 'WebhookAdmissionConfiguration', kubeConfigFile: kubeconfig };
  const plugins = [{ name: 'MutatingAdmissionWebhook', configuration: plugin }];
  await writeFile(admission, JSON.stringify({ apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AdmissionConfiguration', plugins }));
  await using cluster = await startControlPlane({
    controllers: ['serviceaccount-controller'],
    apiServer: [`--admission-control-config-file=${admission}`],
  });
  const configuration = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: 'own' },
    webhooks: [
      {
        name: 'pods.kube-registry.io',
        admissionReviewVersions: ['v1'],
        sideEffects: 'None',
        failurePolicy: 'Ignore',
        clientConfig: { url: `https://localhost:${webhook.port}/mutate`, caBundle: Buffer.from(reviewer.authority).toString('base64') },
        rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
      },
    ],
  };
  await cluster.kubectl(['create', '-f', '-'], JSON.stringify(configuration));
  let made = '';
  const isRewritten = async (): Promise<boolean> => {
    made = await cluster.kubectl(['run', 'hello', '--image=nginx', '--dry-run=server', '-o', 'json']).catch(() => '');
    return REWRITTEN.test(made);
  };
  await until(isRewritten, 'the API server calls the webhook').catch((cause: unknown) => assert.fail(`${String(cause)}: ${made}`));
});
