import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { examples } from '../../chart/examples.ts';
import { render } from '../../chart/render.ts';
import { toolPath, type ToolName } from '../tools/tools.ts';
import { startControlPlane, type ControlPlane } from './control-plane.ts';
import { createHelm, createNamespace, enforceAdmission, everythingIn, removeClaims, type Helm } from './helm.ts';

const NAMESPACE = 'images';
const RELEASE = 'kube-registry';
const CHART = join(import.meta.dirname, '../../chart');
const [POLICY, WEBHOOK] = ['kube-registry-policy', 'kube-registry-webhook'];
const HELMS = ['helm', 'helm-3'] as const satisfies ToolName[];
const modes = (mode: string) => ({ webhook: { mode } });

/** A release between its modes on one version of Kubernetes. */
export function policyLifeCycleSuite(version: string, kubeApiServer: () => Promise<string>): void {
  void describe(`Kubernetes ${version}`, () => {
    const resources = new AsyncDisposableStack();
    let plane: ControlPlane;
    before(async () => {
      plane = resources.use(await startControlPlane({ kubeApiServer: await kubeApiServer(), controllers: ['serviceaccount-controller'] }));
      await createNamespace(plane.kubectl, NAMESPACE);
    });
    after(() => resources.disposeAsync());

    void test('no manifest of the chart is answered with a warning, in any mode', () => assertNoWarnings(plane, version));

    for (const tool of HELMS) {
      void test(`${tool} installs, switches, rolls back and uninstalls beside another field manager, and leaves nothing`, async () => {
        const helm = createHelm(await toolPath(tool), { kubeconfig: plane.kubeconfig, namespace: NAMESPACE });
        await assertLifeCycle(plane, helm);
      });
    }
  });
}

async function assertLifeCycle({ kubectl }: ControlPlane, helm: Helm): Promise<void> {
  const before = await everythingIn(kubectl, NAMESPACE);
  const admission = async (): Promise<string[]> =>
    (await everythingIn(kubectl, NAMESPACE)).filter((name) => /admissionregistration|kube-registry-webhook/.test(name));
  const upgrade = (mode: string) => helm(['upgrade', RELEASE, CHART, '--values', '-'], modes(mode));
  await helm(['install', RELEASE, CHART, '--values', '-'], modes('webhook')); // revision 1
  await enforceAdmission(kubectl, WEBHOOK);
  const ofWebhook = await admission();
  await upgrade('both'); // 2
  const ofBoth = await admission();
  assert.deepEqual(
    ofBoth.filter((name) => !ofWebhook.includes(name)),
    ['mutatingadmissionpolicy', 'mutatingadmissionpolicybinding'].map((kind) => `${kind}.admissionregistration.k8s.io/${POLICY}`),
  );
  await annotate(kubectl);
  await enforceAdmission(kubectl, WEBHOOK);
  await upgrade('policy'); // 3
  assert.deepEqual(
    await admission(),
    ofBoth.filter((name) => !ofWebhook.includes(name)),
  );
  await helm(['upgrade', RELEASE, CHART, '--values', '-'], { webhook: { mode: 'policy', exclude: { extraNamespaces: ['more'] } } }); // 4
  assert.match(await kubectl(['get', 'mutatingadmissionpolicy', POLICY, '-o', 'yaml']), /"more"/);
  await helm(['rollback', RELEASE, '3']); // 5
  for (const kind of ['mutatingadmissionpolicy', 'mutatingadmissionpolicybinding']) {
    const annotations = await kubectl(['get', kind, POLICY, '-o', 'jsonpath={.metadata.annotations}']);
    assert.match(annotations, /"example.com\/owner":"platform"/, `${kind}: what another manager wrote stays`);
  }
  await helm(['rollback', RELEASE, '2']); // 6
  assert.deepEqual(await admission(), ofBoth);
  await helm(['rollback', RELEASE, '1']); // 7
  assert.deepEqual(await admission(), ofWebhook);
  await upgrade('policy');
  await annotate(kubectl);
  await helm(['uninstall', RELEASE]);
  await removeClaims(kubectl, NAMESPACE);
  assert.deepEqual(await everythingIn(kubectl, NAMESPACE), before);
}

/** As GitOps tools and people do. */
async function annotate(kubectl: ControlPlane['kubectl']): Promise<void> {
  for (const kind of ['mutatingadmissionpolicy', 'mutatingadmissionpolicybinding'])
    await kubectl(['annotate', kind, POLICY, '--field-manager=platform', '--overwrite', 'example.com/owner=platform']);
}

/** Warnings tell of deprecated fields and versions, and of fields that have no effect. */
async function assertNoWarnings({ kubectl }: ControlPlane, version: string): Promise<void> {
  const served = new Set((await kubectl(['api-resources', '--no-headers'])).split('\n').map((line) => line.split(/\s+/).at(-1)));
  let objects = 0;
  const namespaces = new Set<string>();
  for (const { file, values } of [...examples(), ...['both', 'policy'].map((mode) => ({ file: mode, values: modes(mode) }))]) {
    const manifests = (await render({ release: RELEASE, namespace: NAMESPACE, kubeVersion: `${version}.0`, values })).filter(
      ({ kind, metadata }) => served.has(kind) && !('helm.sh/hook' in (metadata.annotations ?? {})),
    );
    for (const { metadata } of manifests as { metadata: { namespace?: string } }[]) {
      const { namespace } = metadata;
      if (namespace === undefined || namespaces.has(namespace)) continue;
      namespaces.add(namespace);
      await kubectl(['create', 'namespace', namespace]).catch(() => undefined); // it exists
    }
    const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests });
    const create = ['create', '--dry-run=server', '--warnings-as-errors', '-o', 'name', '-f', '-'];
    const said = await kubectl(create, list).catch((error: Error & { stderr: string }) => assert.fail(`${file}: ${error.stderr}`));
    objects += said.trim().split('\n').length;
  }
  assert.ok(objects > 50, `${objects} objects were taken`);
}
