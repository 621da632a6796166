import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { toolPath } from '../test/tools/tools.ts';
import { examples } from './examples.ts';
import { render, type Manifest } from './render.ts';

/** Kinds that are not defined by Kubernetes. */
const FOREIGN = new Set(['ServiceMonitor', 'PrometheusRule', 'Certificate', 'Issuer']);
const MINORS = Array.from({ length: 13 }, (_, index) => 25 + index);
/** Templates differ below 1.28 (matchConditions) and below 1.29 (native sidecars). */
const TEMPLATED_AS = (minor: number): string => `1.${minor < 28 ? 25 : minor < 29 ? 28 : 37}.0`;

type Validate = (manifest: Manifest) => string[];

async function validator(minor: number): Promise<Validate> {
  const file = join(await toolPath('kubernetes-schemas'), `v1.${minor}.0-local-strict`, '_definitions.json');
  const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
  const definitions = JSON.parse(readFileSync(file, 'utf8')) as { $defs: Record<string, { 'x-kubernetes-group-version-kind'?: Kind[] }> };
  ajv.addSchema({ ...definitions, $id: '/api/_definitions.json' });
  const names = new Map<string, string>();
  for (const [name, { 'x-kubernetes-group-version-kind': kinds = [] }] of Object.entries(definitions.$defs)) {
    for (const { group, version, kind } of kinds) names.set(`${group === '' ? version : `${group}/${version}`} ${kind}`, name);
  }
  return (manifest) => {
    const name = names.get(`${manifest.apiVersion} ${manifest.kind}`);
    if (name === undefined) return [`Kubernetes 1.${minor} knows no ${manifest.apiVersion} ${manifest.kind}`];
    const reference = `/api/_definitions.json#/$defs/${name}`;
    const check = ajv.getSchema(reference) ?? ajv.compile({ $ref: reference });
    void check(manifest);
    return (check.errors ?? []).map((error) => `${manifest.kind} ${manifest.metadata.name}: ${error.instancePath} ${error.message}`);
  };
}
interface Kind {
  group: string;
  version: string;
  kind: string;
}

test('the rendered objects are valid for Kubernetes 1.25 to 1.37, with every values file of the docs', async () => {
  const rendered = new Map<string, { file: string; manifests: Manifest[] }[]>();
  for (const kubeVersion of new Set(MINORS.map(TEMPLATED_AS))) {
    const all = examples().map(async ({ file, values }) => ({ file, manifests: await render({ values, kubeVersion }) }));
    rendered.set(kubeVersion, await Promise.all(all));
  }
  const problems: string[] = [];
  for (const minor of MINORS) {
    const validate = await validator(minor);
    assert.notDeepEqual(
      validate({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'x' }, spec: { port: 1 } }),
      [],
      'wrong keys are seen',
    );
    for (const { file, manifests } of rendered.get(TEMPLATED_AS(minor)) ?? []) {
      for (const manifest of manifests.filter(({ kind }) => !FOREIGN.has(kind))) {
        problems.push(...validate(manifest).map((problem) => `1.${minor}, ${file}: ${problem}`));
      }
    }
  }
  assert.deepEqual(problems, []);
});
