import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createAuthority, issueLeaf } from '../src/webhook/certificates.ts';
import { answersOk } from '../test/support/process.ts';
import { startProgram } from '../test/support/program.ts';
import { freePort, temporaryDirectory } from '../test/support/temporary.ts';
import { debianTool } from '../test/tools/tools.ts';

// npm run bench:webhook: measures reviews per second on one core, over TLS with 16 kept-alive
// connections; prints JSON. The webhook runs on the first core, wrk on the last one. `most`: with a
// new request as soon as the previous one is answered. `perSecond` and `p99` (milliseconds): with a
// pause of 4 ms between a response and the next request of a connection, so that wrk's own queue is
// not measured. `rss`: MiB afterwards.

const SECONDS = 10;
const run = promisify(execFile);

/** A typical pod of a Deployment: three containers from several upstreams, and the fields that an
 *  API server adds. */
const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    generateName: 'web-5d4f8c7b9-',
    namespace: 'default',
    labels: { app: 'web', 'pod-template-hash': '5d4f8c7b9' },
    annotations: { 'prometheus.io/scrape': 'true' },
    ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web-5d4f8c7b9', uid: 'a', controller: true }],
  },
  spec: {
    initContainers: [{ name: 'migrate', image: 'ghcr.io/acme/app:1.2.3', args: ['migrate'] }],
    containers: [
      { name: 'web', image: 'nginx:1.27', env: [{ name: 'A', value: 'b' }], resources: { limits: { cpu: '1', memory: '1Gi' } } },
      { name: 'sidecar', image: 'quay.io/acme/sidecar@sha256:'.padEnd(92, '0') },
    ].map((container) => ({
      ...container,
      terminationMessagePath: '/dev/termination-log',
      terminationMessagePolicy: 'File',
      imagePullPolicy: 'IfNotPresent',
      volumeMounts: [{ name: 'kube-api-access-x', readOnly: true, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }],
    })),
    volumes: [{ name: 'kube-api-access-x', projected: { sources: [{ serviceAccountToken: { expirationSeconds: 3607, path: 'token' } }] } }],
    tolerations: [{ key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 }],
    serviceAccountName: 'default',
    priority: 0,
  },
};
const request = {
  uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
  kind: { group: '', version: 'v1', kind: 'Pod' },
  resource: { group: '', version: 'v1', resource: 'pods' },
  namespace: 'default',
  operation: 'CREATE',
  userInfo: { username: 'system:serviceaccount:kube-system:replicaset-controller', groups: ['system:serviceaccounts'] },
  object: pod,
};
const review = JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request });

await using stack = new AsyncDisposableStack();
const { path } = stack.use(await temporaryDirectory());
const leaf = await issueLeaf(await createAuthority(), ['localhost']);
const [tls, script] = [{ certFile: join(path, 'tls.crt'), keyFile: join(path, 'tls.key') }, join(path, 'review.lua')];
await writeFile(tls.certFile, leaf.cert);
await writeFile(tls.keyFile, leaf.key);
const scriptOf = (pause: number): string =>
  `wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[${review}]==]\n` +
  (pause === 0 ? '' : `function delay() return ${pause} end\n`);
const [port, admin] = [await freePort(), `127.0.0.1:${await freePort()}`];
const webhook = stack.use(
  await startProgram(
    'webhook',
    { webhook: { listen: `127.0.0.1:${port}`, admin, tls } },
    { ready: () => answersOk(`http://${admin}/readyz`) },
  ),
);
await run('taskset', ['--all-tasks', '--cpu-list', '--pid', '0', String(webhook.pid)]);

interface Measured {
  perSecond: number;
  /** Milliseconds. */
  p99: number;
}

/** @throws Error: a response was not 200, or a connection was cut */
async function ask({ seconds, pause }: { seconds: number; pause: number }): Promise<Measured> {
  await writeFile(script, scriptOf(pause));
  const core = String(availableParallelism() - 1);
  const wrk = [await debianTool('wrk'), '-t1', '-c16', '--latency', '-s', script, `-d${seconds}s`, `https://localhost:${port}/mutate`];
  const { stdout } = await run('taskset', ['-c', core, ...wrk]);
  const rate = Number(/^Requests\/sec:\s+([\d.]+)$/m.exec(stdout)?.[1]);
  const [, late, unit = ''] = /^\s+99%\s+([\d.]+)(us|ms|s)$/m.exec(stdout) ?? [];
  if (!(rate > 0) || late === undefined || /Non-2xx|Socket errors/.test(stdout)) throw new Error(stdout);
  return { perSecond: Math.round(rate), p99: Number(late) * ({ us: 0.001, ms: 1, s: 1000 }[unit] ?? Number.NaN) };
}

await ask({ seconds: 3, pause: 0 }); // warm-up
const most = await ask({ seconds: SECONDS, pause: 0 });
const paced = await ask({ seconds: SECONDS, pause: 4 });
const metrics = await (await fetch(`http://${admin}/metrics`)).text();
if (!/reviews_total\{outcome="rewritten"\}/.test(metrics) || /outcome="error"/.test(metrics))
  throw new Error('not every review was a rewrite');
const rss = Math.round((await webhook.memory()).resident / 2 ** 20);
process.stdout.write(`${JSON.stringify({ ...paced, most: most.perSecond, rss })}\n`);
