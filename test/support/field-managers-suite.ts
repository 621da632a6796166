import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createAuthority } from '../../src/webhook/certificates.ts';
import { NAMESPACE_EXPRESSIONS } from '../../src/webhook/webhook-configuration.ts';
import { startControlPlane, type ControlPlane } from './control-plane.ts';
import { createHelm, enforceAdmission, FOREIGN_EXPRESSION, removeClaims } from './helm.ts';
import { temporaryDirectory } from './temporary.ts';
import { until } from './until.ts';
import { startWebhook } from './webhook.ts';
import { toolPath, type ToolName } from '../tools/tools.ts';

// Others change objects of the chart: cloud providers, autoscalers, administrators, the webhook
// itself. Helm 4 applies on the server, where a field of another manager is a conflict; Helm 3
// merges on the client.

const NAMESPACE = 'images';
const NAME = 'kube-registry-webhook';
const CHART = join(import.meta.dirname, '../../chart');
let plane: ControlPlane;
const kubectl: ControlPlane['kubectl'] = (args, input) => plane.kubectl(args, input);

interface Configuration {
  webhooks: { clientConfig: { caBundle?: string }; namespaceSelector: { matchExpressions?: unknown[] }; timeoutSeconds: number }[];
}
async function webhookOf(): Promise<Configuration['webhooks'][number]> {
  const [first] = (JSON.parse(await kubectl(['get', 'mutatingwebhookconfiguration', NAME, '-o', 'json'])) as Configuration).webhooks;
  assert.ok(first !== undefined);
  return first;
}
const bundleOf = async (): Promise<string> => Buffer.from((await webhookOf()).clientConfig.caBundle ?? '', 'base64').toString();

export function fieldManagersSuite(tools: readonly ToolName[]): void {
  void describe('objects of the chart that others change', () => {
    before(async () => {
      plane = await startControlPlane({ controllers: ['serviceaccount-controller'] });
      await kubectl(['create', 'namespace', NAMESPACE]);
    });
    after(() => plane[Symbol.asyncDispose]());
    for (const tool of tools)
      void test(`${tool} upgrades and rolls back what AKS, an autoscaler and the webhook itself have written to`, () =>
        assertFieldsOfOthersStay(tool));
  });
}

async function assertFieldsOfOthersStay(tool: ToolName): Promise<void> {
  const helm = createHelm(await toolPath(tool), { kubeconfig: plane.kubeconfig, namespace: NAMESPACE });
  const upgrade = ['upgrade', 'kube-registry', CHART, '--values', '-'];
  const scaled = { webhook: { replicas: null }, registry: { replicas: null }, objectStorage: { enabled: true } };
  await helm(['install', 'kube-registry', CHART, '--values', '-'], scaled);
  await using temporary = await temporaryDirectory();
  const token = (await kubectl(['--namespace', NAMESPACE, 'create', 'token', NAME])).trim();
  const kubeconfig = join(temporary.path, 'kubeconfig');
  const admin = JSON.parse(await readFile(plane.kubeconfig, 'utf8')) as object;
  await writeFile(kubeconfig, JSON.stringify({ ...admin, users: [{ name: 'test', user: { token } }] }));
  const certificates = { namespace: NAMESPACE, secret: `${NAME}-tls`, service: NAME, configuration: NAME };
  {
    await using webhook = await startWebhook({ certificates }, { KUBECONFIG: kubeconfig });
    await until(async () => (await bundleOf()) !== '', 'API servers trust the webhook');
    const made = await bundleOf();
    await enforceAdmission(kubectl, NAME);
    for (const name of [NAME, 'kube-registry-registry'])
      await kubectl(['--namespace', NAMESPACE, 'scale', 'deployment', name, '--replicas=5']);

    await helm(upgrade, { ...scaled, logLevel: 'debug' });
    await helm(upgrade, { ...scaled, webhook: { ...scaled.webhook, exclude: { extraNamespaces: ['more'] } } });
    await helm(['rollback', 'kube-registry', '2']);
    assert.equal(await bundleOf(), made, 'the authority stays');
    for (const name of [NAME, 'kube-registry-registry']) {
      const replicas = await kubectl(['--namespace', NAMESPACE, 'get', 'deployment', name, '-o', 'jsonpath={.spec.replicas}']);
      assert.equal(replicas, '5', `${name} stays scaled`);
    }
    const keepsSelector = async (): Promise<boolean> => {
      const there = (await webhookOf()).namespaceSelector.matchExpressions ?? [];
      return NAMESPACE_EXPRESSIONS.every((one) => there.some((other) => JSON.stringify(other) === JSON.stringify(one)));
    };
    await until(keepsSelector, 'the webhook keeps what it needs in the selector');
    // Helm 3 restores its own list, and AKS would add its entry again.
    if (tool === 'helm')
      assert.deepEqual((await webhookOf()).namespaceSelector.matchExpressions, [...NAMESPACE_EXPRESSIONS, FOREIGN_EXPRESSION]);

    const own = await createAuthority();
    const byHand = JSON.stringify([
      { op: 'replace', path: '/webhooks/0/clientConfig/caBundle', value: Buffer.from(made).toString('base64') },
    ]);
    await kubectl(['patch', 'mutatingwebhookconfiguration', NAME, '--type=json', '-p', byHand]);
    await helm(upgrade, { ...scaled, webhook: { ...scaled.webhook, tls: { existingSecret: 'own', caBundle: own.cert } } });
    assert.equal(await bundleOf(), made, 'the certificate that is still served stays trusted');
    await webhook.stop();
    const given = { certFile: join(temporary.path, 'tls.crt'), keyFile: join(temporary.path, 'tls.key') };
    await Promise.all([writeFile(given.certFile, own.cert), writeFile(given.keyFile, own.key)]);
    await using next = await startWebhook({ tls: given, configuration: { name: NAME, caBundle: own.cert } }, { KUBECONFIG: kubeconfig });
    await until(async () => (await bundleOf()) === `${own.cert.trim()}\n${made}`, 'the new authority is trusted, beside the former');
    assert.doesNotMatch(next.output(), /webhook-configuration-failed/, 'the rights that the chart grants are sufficient');
    await helm(['rollback', 'kube-registry', '4']);
    assert.match(await bundleOf(), new RegExp(own.cert.slice(40, 90).replaceAll(/[+/]/g, '.')), 'also after a rollback');
  }
  await helm(['uninstall', 'kube-registry']);
  await removeClaims(kubectl, NAMESPACE);
}
