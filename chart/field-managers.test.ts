import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createAuthority } from '../src/webhook/certificates.ts';
import { NAMESPACE_EXPRESSIONS } from '../src/webhook/webhook-configuration.ts';
import { startControlPlane } from '../test/support/control-plane.ts';
import { createHelm, enforceAdmission, FOREIGN_EXPRESSION, removeClaims } from '../test/support/helm.ts';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { startWebhook } from '../test/support/webhook.ts';
import { toolPath, type ToolName } from '../test/tools/tools.ts';

// Others change objects of the chart: cloud providers, autoscalers, administrators, the webhook
// itself. Helm 4 applies on the server, where a field of another manager is a conflict; Helm 3
// merges on the client.

const NAMESPACE = 'images';
const NAME = 'kube-registry-webhook';
const plane = await startControlPlane({ controllers: ['serviceaccount-controller'] });
after(() => plane[Symbol.asyncDispose]());
const { kubectl } = plane;
await kubectl(['create', 'namespace', NAMESPACE]);

interface Configuration {
  webhooks: { clientConfig: { caBundle?: string }; namespaceSelector: { matchExpressions?: unknown[] }; timeoutSeconds: number }[];
}
async function webhookOf(): Promise<Configuration['webhooks'][number]> {
  const [first] = (JSON.parse(await kubectl(['get', 'mutatingwebhookconfiguration', NAME, '-o', 'json'])) as Configuration).webhooks;
  assert.ok(first !== undefined);
  return first;
}
const bundleOf = async (): Promise<string> => Buffer.from((await webhookOf()).clientConfig.caBundle ?? '', 'base64').toString();

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let left = 150; left > 0; left--) {
    if (await holds()) return;
    await delay(200);
  }
  throw new Error(`not within half a minute: ${what}`);
}

for (const tool of ['helm', 'helm-3', 'helm-3.14'] as const satisfies ToolName[]) {
  test(`${tool} upgrades and rolls back what AKS, an autoscaler and the webhook itself have written to`, async () => {
    const helm = createHelm(await toolPath(tool), { kubeconfig: plane.kubeconfig, namespace: NAMESPACE });
    const upgrade = ['upgrade', 'kube-registry', import.meta.dirname, '--values', '-'];
    const scaled = { webhook: { replicas: null }, registry: { replicas: null }, objectStorage: { enabled: true } };
    await helm(['install', 'kube-registry', import.meta.dirname, '--values', '-'], scaled);
    await using temporary = await temporaryDirectory();
    const token = (await kubectl(['--namespace', NAMESPACE, 'create', 'token', NAME])).trim();
    const kubeconfig = join(temporary.path, 'kubeconfig');
    const admin = JSON.parse(await readFile(plane.kubeconfig, 'utf8')) as object;
    await writeFile(kubeconfig, JSON.stringify({ ...admin, users: [{ name: 'test', user: { token } }] }));
    const certificates = { namespace: NAMESPACE, secret: `${NAME}-tls`, service: NAME, configuration: NAME };
    {
      await using webhook = await startWebhook({ certificates }, { KUBECONFIG: kubeconfig });
      await eventually('API servers trust the webhook', async () => (await bundleOf()) !== '');
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
      await eventually('the webhook keeps what it needs in the selector', async () => {
        const there = (await webhookOf()).namespaceSelector.matchExpressions ?? [];
        return NAMESPACE_EXPRESSIONS.every((one) => there.some((other) => JSON.stringify(other) === JSON.stringify(one)));
      });
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
      await eventually('the new authority is trusted, beside the former', async () => (await bundleOf()) === `${own.cert.trim()}\n${made}`);
      assert.doesNotMatch(next.output(), /webhook-configuration-failed/, 'the rights that the chart grants are sufficient');
      await helm(['rollback', 'kube-registry', '4']);
      assert.match(await bundleOf(), new RegExp(own.cert.slice(40, 90).replaceAll(/[+/]/g, '.')), 'also after a rollback');
    }
    await helm(['uninstall', 'kube-registry']);
    await removeClaims(kubectl, NAMESPACE);
  });
}
