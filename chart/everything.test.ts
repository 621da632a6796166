import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { parser as promql } from '@prometheus-io/lezer-promql';
import { parse as parseYaml } from 'yaml';
import { parseConfig } from '../src/config/load.ts';
import { INFRASTRUCTURE_NAMESPACES } from '../src/config/schema.ts';
import { toolPath } from '../test/tools/tools.ts';
import { createClashMetrics } from '../src/clash/metrics.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { createRegistryMetrics } from '../src/telemetry/registry-metrics.ts';
import { createPodImagesMetric } from '../src/commands/wiring/pod-images.ts';
import { createPullSecretsMetrics } from '../src/commands/wiring/pull-secrets.ts';
import { dashboardExpressions } from './dashboard.ts';
import { examples } from './examples.ts';
import { generated } from './generate.ts';
import { at, notes, podOf, render, workloads, type Container, type Manifest } from './render.ts';

// Properties of all rendered objects, with every values file of the docs.

const all: { file: string; values: unknown; manifests: Manifest[] }[] = [];
for (const { file, values } of examples()) all.push({ file, values, manifests: await render({ values }) });

function containersOf(manifest: Manifest): Container[] {
  const { containers, initContainers = [] } = podOf(manifest);
  return [...containers, ...initContainers];
}

function labelsOf(workload: Manifest): Record<string, string> {
  return at(workload, workload.kind === 'Pod' ? 'metadata.labels' : 'spec.template.metadata.labels') as Record<string, string>;
}

function isSelected(selector: Record<string, string>, workload: Manifest): boolean {
  return Object.entries(selector).every(([key, value]) => labelsOf(workload)[key] === value);
}

test('helm lint --strict has nothing to say', async () => {
  const helm = await toolPath('helm');
  for (const { path } of examples()) await promisify(execFile)(helm, ['lint', '--strict', import.meta.dirname, '--values', path]);
});

test('schema and README are those of values.yaml', () => {
  for (const [file, content] of Object.entries(generated()))
    assert.equal(readFileSync(join(import.meta.dirname, file), 'utf8'), content, file);
});

test('the namespaces excluded by default are those of the program', () => {
  const config = configs(all[0]?.manifests ?? []).find(({ name }) => name.endsWith('-webhook'));
  assert.deepEqual(at(config?.config, 'webhook.exclude.namespaces'), INFRASTRUCTURE_NAMESPACES);
});

function configs(manifests: readonly Manifest[]): { name: string; config: unknown }[] {
  return manifests.flatMap(({ kind, metadata, data }) => {
    const content = (data as Record<string, unknown> | undefined)?.['config.yaml'];
    if (typeof content !== 'string') return [];
    return [{ name: metadata.name, config: parseYaml(kind === 'Secret' ? Buffer.from(content, 'base64').toString() : content) }];
  });
}

test('the program accepts every configuration that the chart renders', () => {
  for (const { file, manifests } of all) {
    assert.ok(configs(manifests).length >= 2, file);
    for (const { name, config } of configs(manifests)) {
      assert.doesNotThrow(() => parseConfig(config), `${file}: ${name}`);
    }
  }
});

test('pods run under Pod Security "restricted", but for the agent, which needs the node\'s network', () => {
  for (const { file, manifests } of all) {
    for (const workload of workloads(manifests)) {
      const pod = podOf(workload);
      const where = `${file}: ${workload.metadata.name}`;
      const isAgent = workload.kind === 'DaemonSet';
      const isHostWebhook = file === 'gke.yaml' && workload.metadata.name.endsWith('-webhook');
      assert.equal(at(pod, 'hostNetwork') ?? false, isAgent || isHostWebhook, where);
      assert.equal(at(pod, 'securityContext.seccompProfile.type'), 'RuntimeDefault', where);
      if (!isAgent) assert.equal(at(pod, 'securityContext.runAsNonRoot'), true, where);
      if (!isAgent) assert.ok(!JSON.stringify(pod).includes('hostPath'), where);
      for (const container of containersOf(workload)) {
        assert.deepEqual(
          container['securityContext'],
          { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
          `${where} ${container.name}`,
        );
      }
    }
  }
});

test('images are named with a fixed version', () => {
  for (const { file, manifests } of all) {
    for (const workload of workloads(manifests)) {
      for (const { image } of containersOf(workload)) {
        assert.match(image, /:v?\d+\.\d+\.\d+$/, `${file}: ${workload.metadata.name}`);
      }
    }
  }
});

test('every workload selects its own pods and no others', () => {
  for (const { file, manifests } of all) {
    const makers = workloads(manifests).filter(({ kind }) => kind !== 'Pod');
    for (const workload of makers) {
      const selector = at(workload, 'spec.selector.matchLabels') as Record<string, string>;
      const selected = workloads(manifests).filter((other) => isSelected(selector, other));
      assert.deepEqual(selected, [workload], `${file}: ${workload.metadata.name}`);
    }
  }
});

test('every Service, policy and budget selects one workload, and its ports exist', () => {
  for (const { file, manifests } of all) {
    for (const manifest of manifests.filter(({ kind }) => ['Service', 'NetworkPolicy', 'PodDisruptionBudget'].includes(kind))) {
      const where = `${file}: ${manifest.kind} ${manifest.metadata.name}`;
      const path =
        { Service: 'spec.selector', NetworkPolicy: 'spec.podSelector.matchLabels' }[manifest.kind] ?? 'spec.selector.matchLabels';
      const selected = workloads(manifests).filter((other) => isSelected(at(manifest, path) as Record<string, string>, other));
      assert.equal(selected.length, 1, where);
      const ports = selected.flatMap(containersOf).flatMap((container) => (container['ports'] ?? []) as { name: string }[]);
      const used = [
        ...((at(manifest, 'spec.ports') ?? []) as { targetPort: string }[]).map(({ targetPort }) => targetPort),
        ...((at(manifest, 'spec.ingress') ?? []) as { ports: { port: string }[] }[]).flatMap((rule) => rule.ports.map(({ port }) => port)),
      ];
      for (const port of used)
        assert.ok(
          ports.some(({ name }) => name === port),
          `${where}: ${port}`,
        );
    }
  }
});

test('every mounted volume exists, and every volume is mounted', () => {
  for (const { file, manifests } of all) {
    for (const workload of workloads(manifests)) {
      const mounted = containersOf(workload).flatMap(({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name));
      const there = (podOf(workload).volumes ?? []).map(({ name }) => name);
      assert.deepEqual(new Set(mounted), new Set(there), `${file}: ${workload.metadata.name}`);
    }
  }
});

test('every ConfigMap, Secret, claim and account that a pod names is made by the chart, or named in the values', () => {
  for (const { file, values, manifests } of all) {
    const made = new Set(manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`));
    // No values file of the docs refers to objects that cert-manager would create.
    for (const workload of workloads(manifests)) {
      const text = JSON.stringify(podOf(workload));
      const named = [
        ...[...text.matchAll(/"configMap":\{"name":"([^"]+)"/g)].map(([, name]) => `ConfigMap ${name}`),
        ...[...text.matchAll(/"secretName":"([^"]+)"/g)].map(([, name]) => `Secret ${name}`),
        ...[...text.matchAll(/"secret":\{[^{}]*?"name":"([^"]+)"/g)].map(([, name]) => `Secret ${name}`),
        ...[...text.matchAll(/"secretKeyRef":\{[^{}]*?"name":"([^"]+)"/g)].map(([, name]) => `Secret ${name}`),
        ...[...text.matchAll(/"claimName":"([^"]+)"/g)].map(([, name]) => `PersistentVolumeClaim ${name}`),
        ...[...text.matchAll(/"serviceAccountName":"([^"]+)"/g)].map(([, name]) => `ServiceAccount ${name}`),
      ];
      const given = JSON.stringify(values);
      for (const one of named) {
        assert.ok(made.has(one) || given.includes(`"${one.split(' ')[1]}"`), `${file}: ${workload.metadata.name} names ${one}`);
      }
    }
  }
});

test('a secret of the values is in a Secret, and in no ConfigMap, argument, variable or note', async () => {
  const secret = (name: string): string => `sentinel-${name}`;
  const values = {
    registry: {
      s3: { config: { bucket: 'b' }, secret: { accessKeyId: secret('id'), secretAccessKey: secret('key') } },
      upstreams: {
        dockerhub: { credentials: [{ username: secret('user'), password: secret('password') }] },
        ghcr: { proxy: `http://me:${secret('proxy')}@proxy.example:3128` },
      },
      exposed: { enabled: true, htpasswd: secret('htpasswd'), tlsSecret: 'tls' },
    },
    agent: { proxy: `http://me:${secret('agent-proxy')}@proxy.example:3128` },
    clash: {
      enabled: true,
      subscriptionUrl: `https://airport.example/${secret('subscription')}`,
      users: [{ username: 'me', password: secret('shared') }],
      service: { enabled: true },
      override: { proxies: { prepend: [{ name: 'x', password: secret('override') }] } },
    },
    zot: { s3: { secret: { secretAccessKey: secret('former') } } },
  };
  const manifests = await render({ values });
  for (const manifest of manifests.filter(({ kind }) => kind !== 'Secret')) {
    assert.ok(!JSON.stringify(manifest).includes('sentinel-'), `${manifest.kind} ${manifest.metadata.name}`);
  }
  assert.ok(!(await notes({ values })).includes('sentinel-'));
  const kept = manifests.filter(({ kind }) => kind === 'Secret').flatMap(({ data }) => Object.values(data ?? {}));
  const content = kept.map((value) => Buffer.from(String(value), 'base64').toString()).join('\n');
  for (const name of ['id', 'key', 'user', 'password', 'proxy', 'htpasswd', 'agent-proxy', 'subscription', 'shared', 'override']) {
    assert.ok(content.includes(secret(name)), name);
  }
});

test('the same values give the same manifests, with nothing looked up in a cluster and nothing random', async () => {
  for (const { file, values, manifests } of all.slice(0, 4)) assert.deepEqual(await render({ values }), manifests, file);
  for (const file of globSync('templates/**', { cwd: import.meta.dirname }).filter((name) => /\.(?:yaml|tpl|txt)$/.test(name))) {
    const content = readFileSync(join(import.meta.dirname, file), 'utf8');
    assert.ok(!/\b(?:lookup|randAlphaNum|randAscii|genCA|genSelfSignedCert|now|uuidv4)\b(?! )|\{\{[^}]*\blookup\b/.test(content), file);
  }
});

test("names fit, however long the release's is", async () => {
  const manifests = await render({
    release: 'a-release-name-that-is-as-long-as-helm-lets-one-be-53',
    values: { objectStorage: { enabled: true } },
  });
  for (const { kind, metadata } of manifests) assert.ok(metadata.name.length <= (kind === 'Secret' ? 253 : 63), `${kind} ${metadata.name}`);
});

test('the queries of the dashboard and the alerts are valid PromQL over metrics that exist', async () => {
  const metrics = await createMetrics();
  createRegistryMetrics(metrics);
  createClashMetrics(metrics, () => undefined);
  createPodImagesMetric(metrics);
  createPullSecretsMetrics(metrics, () => ({ usable: 0, unusable: 0, failing: 0 }));
  const text = await metrics.render();
  const { groups } = parseYaml(readFileSync(join(import.meta.dirname, 'alerts.yaml'), 'utf8')) as {
    groups: { rules: { alert: string; expr: string }[] }[];
  };
  const alerts = groups.flatMap(({ rules }) => rules);
  for (const expression of [...dashboardExpressions(), ...alerts.map(({ expr }) => expr)]) {
    const named = metricsOf(expression);
    assert.ok(named.length > 0, expression);
    // test/rewriting-1.36.test.ts checks those of kube-apiserver.
    for (const name of named.filter((name) => !name.startsWith('apiserver_')))
      assert.ok(text.includes(`# TYPE ${name.replace(/_bucket$/, '')} `), name);
  }
  for (const file of ['operations.md', 'operations.zh-CN.md']) {
    const told = readFileSync(join(import.meta.dirname, '../docs', file), 'utf8').matchAll(/^\| `(KubeRegistry\w+)`/gm);
    assert.deepEqual(
      [...told].map(([, name]) => name),
      alerts.map(({ alert }) => alert),
      file,
    );
  }
});

/** @throws Error: it is no PromQL */
function metricsOf(expression: string): string[] {
  const names: string[] = [];
  promql.parse(expression).iterate({
    enter(found) {
      if (found.type.isError) throw new Error(`no PromQL at ${found.from}: ${expression}`);
      if (found.name === 'Identifier' && found.matchContext(['VectorSelector'])) names.push(expression.slice(found.from, found.to));
    },
  });
  return names;
}
