import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import picomatch from 'picomatch';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { toolPath } from '../test/tools/tools.ts';
import { at, find, refusal, render, type Manifest } from './render.ts';

const POLICY = { webhook: { mode: 'policy' } };
const kubeVersion = '1.36.0';

function webhookObjects(manifests: readonly Manifest[]): string[] {
  return manifests.filter(({ kind, metadata }) => /Webhook/.test(kind) || metadata.name.includes('webhook')).map(({ kind }) => kind);
}

test('in policy mode nothing of the webhook is rendered, and in both modes everything', async () => {
  const kinds = ['MutatingAdmissionPolicy', 'MutatingAdmissionPolicyBinding'];
  const count = (manifests: readonly Manifest[]): number => manifests.filter(({ kind }) => kinds.includes(kind)).length;
  const webhook = await render({ kubeVersion });
  const policy = await render({ kubeVersion, values: POLICY });
  const both = await render({ kubeVersion, values: { webhook: { mode: 'both' } } });
  assert.deepEqual([count(webhook), count(policy), count(both)], [0, 2, 2]);
  assert.deepEqual(webhookObjects(policy), []);
  assert.deepEqual(webhookObjects(both), webhookObjects(webhook));
  assert.deepEqual(find(both, 'MutatingAdmissionPolicy'), find(policy, 'MutatingAdmissionPolicy'));
  const off = await render({ kubeVersion, values: { ...POLICY, agent: { mirror: { enabled: true } } } });
  assert.deepEqual([count(off), webhookObjects(off)], [0, []], 'mirror mode rewrites nothing');
});

test('the policy waits for the agents, whose DaemonSet is its parameter, and with an external host for nothing', async () => {
  const manifests = await render({ kubeVersion, values: POLICY });
  const policy = find(manifests, 'MutatingAdmissionPolicy');
  assert.deepEqual(at(policy, 'spec.paramKind'), { apiVersion: 'apps/v1', kind: 'DaemonSet' });
  const name = find(manifests, 'DaemonSet').metadata.name;
  assert.deepEqual(at(find(manifests, 'MutatingAdmissionPolicyBinding'), 'spec.paramRef'), {
    name,
    namespace: 'images',
    parameterNotFoundAction: 'Allow',
  });
  assert.equal(at(policy, 'spec.failurePolicy'), 'Ignore');
  assert.equal(at(policy, 'spec.reinvocationPolicy'), 'IfNeeded');
  const external = { webhook: { mode: 'policy', reach: 'external', registryHost: 'registry.example.com' }, agent: { enabled: false } };
  const other = await render({ kubeVersion, values: external });
  assert.equal(at(find(other, 'MutatingAdmissionPolicy'), 'spec.paramKind'), undefined);
  assert.equal(at(find(other, 'MutatingAdmissionPolicyBinding'), 'spec.paramRef'), undefined);
});

test('values that a policy cannot implement are refused with an error that names the value', async () => {
  assert.match(
    await refusal(POLICY, '1.35.4'),
    /webhook\.mode is policy, but Kubernetes has MutatingAdmissionPolicy .* since 1\.36, and this cluster is v1\.35\.4/,
  );
  await render({ kubeVersion: '1.36.0-eks-1', values: POLICY });
  const rows: [object, RegExp][] = [
    [
      { exclude: { images: ['docker.io/!(acme)/*'] } },
      /webhook\.exclude\.images has the glob docker\.io\/!\(acme\)\/\*, which a policy cannot express/,
    ],
    [{ exclude: { extraNamespaces: ['!team'] } }, /webhook\.exclude\.namespaces has the glob !team/],
    [{ publicRepositories: ['ghcr.io/{a,{b,c}}/x'] }, /webhook\.publicRepositories has the glob ghcr\.io\/\{a,\{b,c\}\}\/x/],
    [{ publicRepositories: ['ghcr.io/acme-**'] }, /webhook\.publicRepositories has the glob ghcr\.io\/acme-\*\*/],
    [{ pullSecrets: 'use' }, /webhook\.pullSecrets is use, but a policy cannot read Secrets/],
    [{ config: { ignorePullSecrets: ['+(a)'] } }, /webhook\.config\.ignorePullSecrets has the glob \+\(a\)/],
  ];
  for (const [webhook, sentence] of rows) assert.match(await refusal({ webhook: { mode: 'policy', ...webhook } }, kubeVersion), sentence);
  assert.match(
    await refusal({ ...POLICY, registry: { otherHosts: ['*', '!(a).b'] } }, kubeVersion),
    /registry\.otherHosts has the glob !\(a\)\.b/,
  );
  for (const pullSecrets of [{ namespaces: ['team-a'] }, { allNamespaces: true }]) {
    const sentence =
      /pullSecrets lets the webhook read Secrets, which a policy cannot \(webhook\.mode is policy\): remove pullSecrets\.namespaces/;
    assert.match(await refusal({ ...POLICY, pullSecrets }, kubeVersion), sentence);
  }
});

/** The chart's own translation of each glob into a regular expression. */
async function translate(globs: readonly string[]): Promise<RegExp[]> {
  await using directory = await temporaryDirectory();
  const templates = join(directory.path, 'templates');
  await mkdir(templates);
  await cp(join(import.meta.dirname, 'templates/_policy.tpl'), join(templates, '_policy.tpl'));
  await writeFile(join(directory.path, 'Chart.yaml'), 'apiVersion: v2\nname: globs\nversion: 1.0.0\n');
  const template = 'globs:{{ range .Values.globs }}\n- {{ include "kube-registry.globs" (list .) | toRawJson }}{{ end }}\n';
  await writeFile(join(templates, 'globs.yaml'), template);
  const child = promisify(execFile)(await toolPath('helm'), ['template', directory.path, '--values', '-'], { maxBuffer: 2 ** 26 });
  child.child.stdin?.end(JSON.stringify({ globs }));
  const { stdout } = await child;
  return [...stdout.matchAll(/^- (".*")$/gm)].map(([, pattern = '']) => new RegExp(JSON.parse(pattern) as string));
}

test('promise 25: globs are the same as regular expressions', async () => {
  const word = fc.constantFrom('a', 'b', 'ab', 'a.b', 'acme', 'x-y', 'c_d', '1');
  const piece = fc.oneof(
    { weight: 5, arbitrary: word },
    { weight: 3, arbitrary: fc.constantFrom('*', '?') },
    { weight: 1, arbitrary: fc.constantFrom('{a,b}', '{acme,x-*}', '[ab]', '[a-c]', ':1', '@sha256:*') },
  );
  const segment = fc.oneof(
    { weight: 2, arbitrary: fc.constantFrom('*', '**') },
    { weight: 5, arbitrary: fc.array(piece, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('').replaceAll(/\*+/g, '*')) },
  );
  const glob = fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
  const name = fc
    .tuple(
      fc.array(
        fc.array(word, { minLength: 1, maxLength: 2 }).map((parts) => parts.join('')),
        { minLength: 1, maxLength: 4 },
      ),
      fc.constantFrom('', ':1', '@sha256:a'),
    )
    .map(([parts, suffix]) => parts.join('/') + suffix);
  const globs = fc.sample(glob, 600);
  const patterns = await translate(globs);
  assert.equal(patterns.length, globs.length);
  let matched = 0;
  for (const [index, text] of globs.entries()) {
    const matches = picomatch(text, { dot: true, nonegate: true });
    for (const one of fc.sample(name, 200)) {
      const expected = matches(one);
      assert.equal(patterns[index]?.test(one), expected, `${text} and ${one}: ${String(patterns[index])}`);
      if (expected) matched++;
    }
  }
  assert.ok(matched > 1000, `${matched} of them match`);
});
