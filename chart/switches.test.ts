import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NAMESPACE_EXPRESSIONS } from '../src/webhook/webhook-configuration.ts';
import { at, configOf, find, notes, podOf, render, type Container, type Manifest } from './render.ts';

const S3 = { config: { bucket: 'images' }, secret: { accessKeyId: 'id', secretAccessKey: 'key' } };
const CLASH = { enabled: true, subscriptionUrl: 'https://airport.example/token' };

function kinds(manifests: readonly Manifest[]): string[] {
  return manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
}
function container(manifests: readonly Manifest[], component: string, name = component): Container {
  const kind = component === 'agent' ? 'DaemonSet' : 'Deployment';
  const { containers, initContainers = [] } = podOf(find(manifests, kind, `-${component}`));
  const found = [...containers, ...initContainers].find((one) => one.name === name);
  assert.ok(found, `container ${name}`);
  return found;
}

describe('storage', () => {
  test('without any values, images are kept on a claim that outlives the release, and the old pod stops before the new one starts', async () => {
    const manifests = await render();
    const claim = find(manifests, 'PersistentVolumeClaim');
    assert.equal(at(claim, 'spec.resources.requests.storage'), '50Gi');
    assert.equal(claim.metadata.annotations?.['helm.sh/resource-policy'], 'keep');
    const deployment = find(manifests, 'Deployment', '-registry');
    assert.equal(at(deployment, 'spec.strategy.type'), 'Recreate');
    assert.ok(!kinds(manifests).includes('PodDisruptionBudget test-kube-registry-registry'), 'no budget that would hold up a drain');
    const config = configOf(manifests, 'registry');
    assert.deepEqual(at(config, 'registry.storage'), { filesystem: { directory: '/var/lib/kube-registry/data' } });
    assert.equal(at(config, 'registry.cache.maxSize'), 0.9 * 50 * 2 ** 30);
  });

  test('with S3, its keys are files, and the spool is requested as ephemeral storage', async () => {
    const manifests = await render({
      values: { registry: { s3: { ...S3, config: { ...S3.config, region: 'eu', regionEndpoint: 'https://s3.example' } } } },
    });
    const config = configOf(manifests, 'registry');
    assert.deepEqual(at(config, 'registry.storage.s3'), {
      bucket: 'images',
      region: 'eu',
      endpoint: 'https://s3.example',
      createBucket: false,
      accessKeyIdFile: '/run/secrets/kube-registry/s3/accessKeyId',
      secretAccessKeyFile: '/run/secrets/kube-registry/s3/secretAccessKey',
    });
    assert.equal(at(config, 'registry.local.maxSize'), 0.9 * 10 * 2 ** 30);
    const registry = container(manifests, 'registry');
    assert.equal(at(registry, 'resources.requests.ephemeral-storage'), '10Gi');
    assert.ok(!manifests.some(({ kind }) => kind === 'PersistentVolumeClaim'));
    assert.equal(at(find(manifests, 'Secret', '-s3'), 'data.secretAccessKey'), Buffer.from('key').toString('base64'));
  });

  test('the registry may list pods only when it is allowed to, and has no token otherwise', async () => {
    const [without, allowed] = await Promise.all([render(), render({ values: { registry: { serviceAccount: { listPods: true } } } })]);
    assert.ok(!kinds(without).includes('ClusterRole test-kube-registry-registry'));
    assert.equal(podOf(find(without, 'Deployment', '-registry')).automountServiceAccountToken, false);
    assert.equal(podOf(find(allowed, 'Deployment', '-registry')).automountServiceAccountToken, true);
    assert.deepEqual(find(allowed, 'ClusterRole', '-registry')['rules'], [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }]);
    assert.equal(at(find(allowed, 'ClusterRoleBinding', '-registry'), 'roleRef.name'), 'test-kube-registry-registry');
  });

  test('with S3 by a role, there are no keys', async () => {
    const values = {
      registry: { s3: { config: { bucket: 'b' }, workloadIdentity: true }, serviceAccount: { annotations: { role: 'arn' } } },
    };
    const manifests = await render({ values });
    assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.storage.s3'), { bucket: 'b', createBucket: false });
    assert.equal(find(manifests, 'ServiceAccount', '-registry').metadata.annotations?.['role'], 'arn');
  });

  test('with an existing Secret, the configured key names are used', async () => {
    const secret = { existingSecret: 'mine', accessKeyIdKey: 'AWS_ACCESS_KEY_ID', secretAccessKeyKey: 'AWS_SECRET_ACCESS_KEY' };
    const manifests = await render({ values: { registry: { s3: { config: { bucket: 'b' }, secret } } } });
    const volume = podOf(find(manifests, 'Deployment', '-registry')).volumes.find(({ name }) => name === 'secrets');
    assert.deepEqual(at(volume, 'projected.sources'), [
      {
        secret: {
          name: 'mine',
          items: [
            { key: 'AWS_ACCESS_KEY_ID', path: 's3/accessKeyId' },
            { key: 'AWS_SECRET_ACCESS_KEY', path: 's3/secretAccessKey' },
          ],
        },
      },
    ]);
  });

  test("with the chart's own S3, both sides have the key that the cluster makes once", async () => {
    const manifests = await render({ values: { objectStorage: { enabled: true } } });
    const token = find(manifests, 'Secret', '-object-storage-token');
    assert.equal(token['type'], 'kubernetes.io/service-account-token');
    assert.equal(token['data'], undefined, 'an upgrade touches no key');
    const env = container(manifests, 'object-storage', 'versitygw').env ?? [];
    assert.deepEqual(
      at(
        env.find(({ name }) => name === 'ROOT_SECRET_KEY'),
        'valueFrom.secretKeyRef',
      ),
      { name: token.metadata.name, key: 'token' },
    );
    const secrets = JSON.stringify(podOf(find(manifests, 'Deployment', '-registry')).volumes);
    assert.ok(secrets.includes(JSON.stringify({ key: 'token', path: 's3/secretAccessKey' })));
    const config = configOf(manifests, 'registry');
    assert.equal(at(config, 'registry.storage.s3.endpoint'), 'http://test-kube-registry-object-storage:7070');
    assert.equal(at(config, 'registry.cache.maxSize'), 0.9 * 100 * 2 ** 30);
    assert.equal(find(manifests, 'PersistentVolumeClaim', '-object-storage').metadata.annotations?.['helm.sh/resource-policy'], 'keep');
    assert.ok(
      !manifests.some(({ kind, metadata }) => /Role/.test(kind) && metadata.name.includes('object-storage')),
      'the account may do nothing',
    );
  });

  test('keys among any other keys of the configuration are in a Secret', async () => {
    const keys = { bucket: 'images', accessKeyId: 'id', secretAccessKey: 'sentinel' };
    const manifests = await render({ values: { registry: { config: { storage: { s3: keys } } } } });
    assert.ok(!JSON.stringify(manifests).includes('sentinel'));
    assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.storage.s3'), { ...keys, createBucket: false });
    find(manifests, 'Secret', '-registry');
  });

  test('several replicas know each other, spread, and one at a time may be drained', async () => {
    const manifests = await render({ values: { registry: { replicas: 3, s3: S3 } } });
    assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.peers'), { service: 'test-kube-registry-peers:5000' });
    assert.equal(at(find(manifests, 'Service', '-peers'), 'spec.clusterIP'), 'None');
    assert.equal(at(find(manifests, 'PodDisruptionBudget', '-registry'), 'spec.maxUnavailable'), 1);
    const deployment = find(manifests, 'Deployment', '-registry');
    assert.deepEqual(at(deployment, 'spec.strategy.rollingUpdate'), { maxSurge: 1, maxUnavailable: 0 });
    assert.equal(at(podOf(deployment), 'topologySpreadConstraints.0.topologyKey'), 'kubernetes.io/hostname');
  });

  test('one replica has no peers', async () => {
    assert.equal(at(configOf(await render(), 'registry'), 'registry.peers'), undefined);
  });

  test('replicas may share a volume that many may write', async () => {
    const manifests = await render({ values: { registry: { replicas: 2, persistence: { accessModes: ['ReadWriteMany'] } } } });
    assert.notEqual(at(find(manifests, 'Deployment', '-registry'), 'spec.strategy.type'), 'Recreate');
  });

  test('an existing claim is used, and the program determines its size', async () => {
    const manifests = await render({ values: { registry: { persistence: { existingClaim: 'mine' } } } });
    assert.ok(!manifests.some(({ kind }) => kind === 'PersistentVolumeClaim'));
    assert.equal(at(configOf(manifests, 'registry'), 'registry.cache'), undefined);
    assert.ok(JSON.stringify(podOf(find(manifests, 'Deployment', '-registry')).volumes).includes('"claimName":"mine"'));
  });

  test('any key of the configuration is passed on, and an empty one is unset', async () => {
    const config = { onProxyFailure: 'direct', cache: { tagTtl: '5m', staleFor: '' }, storage: { s3: { prefix: 'x/' } } };
    const registry = at(configOf(await render({ values: { registry: { s3: S3, config } } }), 'registry'), 'registry');
    assert.equal(at(registry, 'onProxyFailure'), 'direct');
    assert.deepEqual(at(registry, 'cache'), { tagTtl: '5m' });
    assert.equal(at(registry, 'storage.s3.prefix'), 'x/');
    assert.equal(at(registry, 'storage.s3.bucket'), 'images');
  });
});

describe('upstreams', () => {
  const values = {
    registry: {
      upstreams: {
        dockerhub: {
          proxy: 'http://proxy.example:3128',
          mirrors: [{ url: 'https://mirror.example' }],
          credentials: [{ repositories: 'acme/', username: 'me', password: 'secret' }, { existingSecret: 'account' }],
        },
        harbor: { url: 'https://harbor.example', ca: '-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n', proxy: '' },
        gcr: null,
      },
    },
  };

  test('credentials are files, a certificate too, and null removes an upstream', async () => {
    const manifests = await render({ values });
    assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.upstreams'), {
      dockerhub: {
        proxy: 'http://proxy.example:3128',
        mirrors: [{ url: 'https://mirror.example' }],
        credentials: [
          {
            repositories: 'acme/',
            usernameFile: '/run/secrets/kube-registry/upstreams/dockerhub.0.username',
            passwordFile: '/run/secrets/kube-registry/upstreams/dockerhub.0.password',
          },
          {
            usernameFile: '/run/secrets/kube-registry/upstreams/dockerhub.1.username',
            passwordFile: '/run/secrets/kube-registry/upstreams/dockerhub.1.password',
          },
        ],
      },
      harbor: { url: 'https://harbor.example', ca: '/etc/kube-registry-ca/harbor.pem' },
      gcr: null,
    });
    assert.match(String((find(manifests, 'ConfigMap', '-ca')['data'] as Record<string, string>)['harbor.pem']), /BEGIN CERTIFICATE/);
    assert.match(await notes({ values }), /can be read by every pod and node/);
  });

  test('upstreams among any other keys of the configuration are upstreams too', async () => {
    const said = await render({ values: { registry: { config: values.registry } } });
    assert.deepEqual(said, await render({ values }));
  });

  test("the agent knows the upstreams, but neither their credentials nor the registry's proxy", async () => {
    const manifests = await render({ values });
    assert.deepEqual(at(configOf(manifests, 'agent'), 'registry.upstreams.dockerhub'), { mirrors: [{ url: 'https://mirror.example' }] });
    const { volumes } = podOf(find(manifests, 'DaemonSet'));
    const secrets = volumes.filter((volume) => JSON.stringify(volume).includes('secret'));
    assert.deepEqual(
      secrets.map(({ name }) => name),
      ['handover'],
    );
    assert.ok(volumes.some(({ name }) => name === 'certificates'));
  });

  test('the webhook knows which repositories have credentials, and has none', async () => {
    const manifests = await render({ values });
    assert.equal(at(configOf(manifests, 'webhook'), 'registry.upstreams.dockerhub.credentials.0.repositories'), 'acme/');
    assert.ok(!JSON.stringify(podOf(find(manifests, 'Deployment', '-webhook'))).includes('upstreams'));
  });
});

describe('clash', () => {
  test('off, there is no trace of it', async () => {
    const manifests = await render({ values: { clash: { subscriptionUrl: '', image: { repository: '' } } } });
    assert.ok(!JSON.stringify(manifests.filter(({ kind }) => kind !== 'NetworkPolicy')).includes('"clash'));
    assert.equal(at(configOf(manifests, 'registry'), 'registry.proxy'), undefined);
  });

  test('on, the registry goes out by it, and the subscription is in a Secret', async () => {
    const manifests = await render({ values: { clash: CLASH } });
    assert.equal(at(configOf(manifests, 'registry'), 'registry.proxy'), 'http://127.0.0.1:7890');
    const clash = at(configOf(manifests, 'clash'), 'clash');
    assert.deepEqual(at(clash, 'subscriptions'), [{ name: 'subscription', url: CLASH.subscriptionUrl }]);
    assert.equal(at(clash, 'mode'), 'nodes');
    assert.deepEqual(at(clash, 'ports'), { proxy: 7890, shared: 0 });
    assert.equal(container(manifests, 'registry', 'clash')['readinessProbe'], undefined, 'a dead proxy leaves the registry in its Service');
  });

  for (const [kubeVersion, native] of [
    ['1.28.15', false],
    ['1.29.0', true],
    ['1.34.4', true],
    ['1.30.2+k3s1', true],
    ['1.29.0-eks-1', true],
  ] as const) {
    test(`on Kubernetes ${kubeVersion} it is ${native ? 'a native sidecar' : 'a container beside the registry'}`, async () => {
      const pod = podOf(find(await render({ values: { clash: CLASH }, kubeVersion }), 'Deployment', '-registry'));
      assert.equal(pod.initContainers?.[0]?.['restartPolicy'], native ? 'Always' : undefined);
      assert.deepEqual(
        pod.containers.map(({ name }) => name),
        native ? ['registry'] : ['registry', 'clash'],
      );
      const [clash] = [...(pod.initContainers ?? []), ...pod.containers].filter(({ name }) => name === 'clash');
      assert.equal(clash?.['lifecycle'] === undefined, native, 'it stays until running pulls have ended');
    });
  }

  test('a custom config, as a map or as text, sets mode custom', async () => {
    for (const config of [{ rules: ['MATCH,DIRECT'] }, 'rules: ["MATCH,DIRECT"]']) {
      const manifests = await render({ values: { clash: { enabled: true, config } } });
      const clash = at(configOf(manifests, 'clash'), 'clash');
      assert.equal(at(clash, 'mode'), 'custom');
      assert.equal(at(clash, 'configFile'), '/etc/kube-registry/custom.yaml');
      assert.deepEqual(configOf(manifests, 'clash', 'custom.yaml'), { rules: ['MATCH,DIRECT'] });
    }
  });

  test('subscriptions, users and config from Secrets are files', async () => {
    const manifests = await render({
      values: {
        clash: {
          enabled: true,
          existingSecret: 'airport',
          subscriptions: [{ name: 'second', existingSecret: 'airports', key: 'second', interval: '1h' }],
          users: [{ username: 'me', existingSecret: 'users', key: 'me' }],
          service: { enabled: true, port: 1080 },
        },
      },
    });
    const clash = at(configOf(manifests, 'clash'), 'clash');
    assert.deepEqual(at(clash, 'subscriptions'), [
      { name: 'subscription', urlFile: '/run/secrets/kube-registry/clash/subscription' },
      { name: 'second', interval: '1h', urlFile: '/run/secrets/kube-registry/clash/subscription.second' },
    ]);
    assert.deepEqual(at(clash, 'users'), [{ username: 'me', passwordFile: '/run/secrets/kube-registry/clash/user.me' }]);
    assert.equal(at(clash, 'ports.shared'), 7891);
    assert.deepEqual(at(find(manifests, 'Service', '-clash'), 'spec.ports'), [{ name: 'proxy', port: 1080, targetPort: 'clash' }]);
  });
});

describe('the agent', () => {
  test("listens on the node's loopback and finds the registry without DNS", async () => {
    const manifests = await render({ release: 'my.images' });
    const agent = container(manifests, 'agent');
    assert.deepEqual(agent.args, ['agent', '--set', 'agent.registry=http://$(MY_IMAGES_KUBE_REGISTRY_SERVICE_HOST):5000']);
    assert.equal(agent['ports'], undefined, 'two may share the node during an upgrade');
    assert.equal(at(configOf(manifests, 'agent'), 'agent.listen'), '127.0.0.1:25000');
    assert.equal(find(manifests, 'Service', 'my-images-kube-registry').metadata.name, 'my-images-kube-registry');
    const daemonSet = find(manifests, 'DaemonSet');
    assert.deepEqual(at(daemonSet, 'spec.updateStrategy.rollingUpdate'), { maxSurge: 1, maxUnavailable: 0 });
    const pod = podOf(daemonSet);
    assert.deepEqual(pod['tolerations'], [{ operator: 'Exists' }]);
    assert.equal(pod['priorityClassName'], 'system-node-critical');
    assert.notEqual(pod['enableServiceLinks'], false);
  });

  test('counts as started once its own file exists, even if another agent answers on its port', async () => {
    const manifests = await render({ values: { agent: { config: { readyFile: '/tmp/mine' } } } });
    assert.equal(at(configOf(manifests, 'agent'), 'agent.readyFile'), '/tmp/mine');
    assert.deepEqual(at(container(manifests, 'agent'), 'startupProbe.exec.command'), ['test', '-e', '/tmp/mine']);
  });

  test('puts an IPv6 address in brackets', async () => {
    const manifests = await render({ values: { registry: { service: { ipFamilies: ['IPv6'] } } } });
    assert.equal(container(manifests, 'agent').args?.[2], 'agent.registry=http://[$(TEST_KUBE_REGISTRY_SERVICE_HOST)]:5000');
    assert.equal(at(configOf(manifests, 'registry'), 'registry.listen'), '[::]:5000');
  });

  test('on another port, the webhook writes that one', async () => {
    const manifests = await render({ values: { agent: { port: 5999, extraPorts: [25000] } } });
    assert.equal(at(configOf(manifests, 'agent'), 'agent.listen'), '127.0.0.1:5999');
    assert.deepEqual(at(configOf(manifests, 'agent'), 'agent.extraPorts'), [25000]);
    assert.equal(at(configOf(manifests, 'webhook'), 'webhook.registryHost'), '127.0.0.1:5999');
  });

  test('in mirror mode it writes to the node, and there is no webhook', async () => {
    const manifests = await render({
      values: { agent: { mirror: { enabled: true, directory: '/x/certs.d' } }, webhook: { enabled: true } },
    });
    assert.deepEqual(at(configOf(manifests, 'agent'), 'agent.mirror'), { directory: '/x/certs.d', removeOnExit: true });
    const pod = podOf(find(manifests, 'DaemonSet'));
    assert.deepEqual(pod.volumes.find(({ name }) => name === 'mirror')?.['hostPath'], { path: '/x/certs.d', type: 'DirectoryOrCreate' });
    assert.equal(at(pod, 'securityContext.runAsUser'), 0);
    assert.ok(!manifests.some(({ kind, metadata }) => kind === 'MutatingWebhookConfiguration' || metadata.name.includes('webhook')));
  });

  test('a quota for its class, and a SecurityContextConstraints, when asked', async () => {
    const manifests = await render({ values: { agent: { resourceQuota: { enabled: true } }, openshift: { enabled: true } } });
    assert.deepEqual(at(find(manifests, 'ResourceQuota'), 'spec.scopeSelector.matchExpressions.0.values'), ['system-node-critical']);
    assert.equal(at(find(manifests, 'RoleBinding', '-scc'), 'roleRef.name'), 'system:openshift:scc:hostnetwork-v2');
    assert.equal(at(podOf(find(manifests, 'Deployment', '-registry')), 'securityContext.runAsUser'), undefined);
  });

  test('off, nothing of it is made', async () => {
    const manifests = await render({ values: { agent: { enabled: false }, webhook: { enabled: false } } });
    assert.ok(!kinds(manifests).some((name) => /agent|webhook/.test(name)));
  });
});

describe('the webhook', () => {
  test('never stands in the way of a pod', async () => {
    const webhook = at(find(await render(), 'MutatingWebhookConfiguration'), 'webhooks.0');
    assert.equal(at(webhook, 'failurePolicy'), 'Ignore');
    assert.equal(at(webhook, 'timeoutSeconds'), 2);
    assert.equal(at(webhook, 'sideEffects'), 'None');
    assert.equal(at(webhook, 'reinvocationPolicy'), 'IfNeeded');
    assert.equal(at(webhook, 'clientConfig.caBundle'), undefined, 'the webhook itself writes it');
    assert.deepEqual(at(webhook, 'namespaceSelector'), { matchExpressions: NAMESPACE_EXPRESSIONS }, 'what the webhook keeps');
    const conditions = at(webhook, 'matchConditions') as { expression: string }[];
    const excluded = conditions.filter(({ expression }) => expression.includes('request.namespace')).map(({ expression }) => expression);
    assert.match(excluded[0] ?? '', /^!\(request\.namespace in \["kube-system",.*"kyverno"\]\)$/);
    assert.deepEqual(excluded.slice(1), ['!request.namespace.startsWith("openshift-")']);
    const former = at(find(await render({ kubeVersion: '1.27.0' }), 'MutatingWebhookConfiguration'), 'webhooks.0');
    const namespaces = at(former, 'namespaceSelector.matchExpressions.0.values') as string[];
    assert.ok(namespaces.includes('kube-system') && !namespaces.some((name) => name.includes('*')), 'before match conditions');
  });

  test('is not asked about pods of the release, wherever they are', async () => {
    const manifests = await render({ namespace: 'default', values: { objectStorage: { enabled: true } } });
    const expressions = at(find(manifests, 'MutatingWebhookConfiguration'), 'webhooks.0.objectSelector.matchExpressions');
    assert.deepEqual(expressions, [{ key: 'kube-registry/rewrite', operator: 'NotIn', values: ['false'] }]);
    for (const workload of manifests.filter(({ kind }) => ['Deployment', 'DaemonSet'].includes(kind))) {
      assert.equal((at(workload, 'spec.template.metadata.labels') as Record<string, string>)['kube-registry/rewrite'], 'false');
    }
  });

  test('match conditions only where the API server knows them', async () => {
    for (const [kubeVersion, there] of [
      ['1.27.16', false],
      ['1.28.0', true],
    ] as const) {
      const configuration = find(await render({ kubeVersion }), 'MutatingWebhookConfiguration');
      assert.equal(at(configuration, 'webhooks.0.matchConditions') !== undefined, there, kubeVersion);
    }
  });

  test('waits for the agents that it rewrites to, and may see no more than that and its own Secret and configuration', async () => {
    const manifests = await render();
    assert.deepEqual(at(configOf(manifests, 'webhook'), 'webhook.agents'), {
      namespace: 'images',
      daemonSet: find(manifests, 'DaemonSet').metadata.name,
    });
    const rules = [find(manifests, 'Role', '-webhook'), find(manifests, 'ClusterRole', '-webhook')].flatMap(
      (role) => role['rules'] as { resourceNames?: string[] }[],
    );
    for (const rule of rules) assert.equal(rule.resourceNames?.length, 1);
    assert.equal(find(manifests, 'Secret', '-webhook-tls')['data'], undefined);
  });

  test('with an external host it rewrites to that host, and does not wait for agents', async () => {
    const manifests = await render({
      values: { webhook: { reach: 'external', registryHost: 'registry.example.com' }, agent: { enabled: false } },
    });
    const webhook = at(configOf(manifests, 'webhook'), 'webhook');
    assert.equal(at(webhook, 'registryHost'), 'registry.example.com');
    assert.equal(at(webhook, 'agents'), undefined);
  });

  test('a given certificate is used, and the webhook gets its authority and writes it into the configuration', async () => {
    const manifests = await render({ values: { webhook: { tls: { existingSecret: 'mine', caBundle: 'PEM' } } } });
    assert.equal(at(find(manifests, 'MutatingWebhookConfiguration'), 'webhooks.0.clientConfig.caBundle'), undefined);
    const own = at(configOf(manifests, 'webhook'), 'webhook');
    assert.equal(at(own, 'certificates'), undefined);
    assert.deepEqual(at(own, 'configuration'), { name: 'test-kube-registry-webhook', caBundle: 'PEM' });
    const may = ['Role', 'ClusterRole'].flatMap((kind) => find(manifests, kind, '-webhook')['rules'] as { resources: string[] }[]);
    assert.deepEqual(may.flatMap(({ resources }) => resources).sort(), ['daemonsets', 'mutatingwebhookconfigurations'], 'and no Secret');
  });

  test('cert-manager makes one when asked', async () => {
    const manifests = await render({ values: { webhook: { tls: { certManager: { enabled: true } } } } });
    assert.deepEqual(at(find(manifests, 'Certificate'), 'spec.dnsNames'), ['test-kube-registry-webhook.images.svc']);
    const { annotations } = find(manifests, 'MutatingWebhookConfiguration').metadata;
    assert.equal(annotations?.['cert-manager.io/inject-ca-from'], 'images/test-kube-registry-webhook');
    const configuration = at(configOf(manifests, 'webhook'), 'webhook.configuration');
    assert.deepEqual(configuration, { name: 'test-kube-registry-webhook' }, 'cert-manager writes caBundle');
  });

  test("in the nodes' network two of them are never put on one node at an upgrade", async () => {
    const deployment = find(await render({ values: { webhook: { hostNetwork: true, port: 9443 } } }), 'Deployment', '-webhook');
    assert.equal(at(podOf(deployment), 'hostNetwork'), true);
    assert.deepEqual(at(deployment, 'spec.strategy.rollingUpdate'), { maxSurge: 0, maxUnavailable: 1 });
    assert.deepEqual(at(podOf(deployment), 'containers.0.ports.0'), { name: 'webhook', containerPort: 9443 });
  });
});

describe('network policies restrict who may connect', () => {
  test("everyone to the registry and the webhook; metrics only the release's own pods", async () => {
    const manifests = await render();
    for (const [component, port] of [
      ['registry', 'registry'],
      ['webhook', 'webhook'],
    ] as const) {
      const [open, own] = at(find(manifests, 'NetworkPolicy', `-${component}`), 'spec.ingress') as { ports: unknown; from?: unknown[] }[];
      assert.deepEqual(open, { ports: [{ port }] });
      assert.deepEqual(own?.ports, [{ port: 'admin' }]);
      assert.equal(own?.from?.length, 1);
    }
  });

  test('Prometheus with a ServiceMonitor; other clients by name', async () => {
    const withMonitor = await render({ values: { metrics: { serviceMonitor: { enabled: true } } } });
    assert.ok(JSON.stringify(find(withMonitor, 'NetworkPolicy', '-registry')).includes('"app.kubernetes.io/name":"prometheus"'));
    const metricsFrom = [{ namespaceSelector: { matchLabels: { team: 'metrics' } } }];
    const withOthers = await render({ values: { networkPolicy: { metricsFrom } } });
    assert.deepEqual(at(find(withOthers, 'NetworkPolicy', '-webhook'), 'spec.ingress.1.from.1'), metricsFrom[0]);
  });

  test('only pods of the cluster to the shared proxy, only the registry to its S3 where no agents read from it', async () => {
    const values = {
      clash: { ...CLASH, users: [{ username: 'a', password: 'b' }], service: { enabled: true } },
      objectStorage: { enabled: true },
      agent: { enabled: false },
      webhook: { enabled: false },
    };
    const manifests = await render({ values });
    assert.deepEqual(at(find(manifests, 'NetworkPolicy', '-registry'), 'spec.ingress.2.from'), [{ namespaceSelector: {} }]);
    const from = at(find(manifests, 'NetworkPolicy', '-object-storage'), 'spec.ingress.0.from.0.podSelector.matchLabels') as Record<
      string,
      string
    >;
    assert.equal(from['app.kubernetes.io/component'], 'registry');
  });

  test('no policies when there are to be none', async () => {
    assert.ok(!(await render({ values: { networkPolicy: { enabled: false } } })).some(({ kind }) => kind === 'NetworkPolicy'));
  });
});

describe('images', () => {
  const imagesOf = (manifests: readonly Manifest[]): Set<string> =>
    new Set(
      ['registry', 'webhook', 'agent', 'object-storage'].flatMap((component) =>
        podOf(find(manifests, component === 'agent' ? 'DaemonSet' : 'Deployment', `-${component}`)).containers.map(({ image }) => image),
      ),
    );

  test('all are pulled from a mirror if one is set', async () => {
    const manifests = await render({ values: { global: { imageRegistry: 'm.example/ghcr.io' }, objectStorage: { enabled: true } } });
    for (const image of imagesOf(manifests)) assert.match(image, /^m\.example\/ghcr\.io\/(?:qiudeng7\/kube-registry|versity\/versitygw):/);
  });

  test('a digest is used in addition to the tag', async () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    const manifests = await render({ values: { image: { registry: 'r.example', repository: 'x/y', tag: '2.0.0', digest } } });
    assert.equal(container(manifests, 'registry').image, `r.example/x/y:2.0.0@${digest}`);
  });

  for (const [repository, registry] of [
    ['ghcr.m.daocloud.io/project-zot/zot', 'ghcr.m.daocloud.io'],
    ['m.daocloud.io/ghcr.io/project-zot/zot', 'm.daocloud.io/ghcr.io'],
    ['localhost:5000/zot', 'localhost:5000'],
    ['ghcr.io/project-zot/zot', 'ghcr.io'],
    ['project-zot/zot', 'ghcr.io'],
    ['', 'ghcr.io'],
  ] as const) {
    test(`of the former chart's image ${repository === '' ? '(empty)' : repository}, only the mirror host counts`, async () => {
      const manifests = await render({ values: { zot: { image: { repository, tag: 'latest' } } } });
      assert.match(container(manifests, 'registry').image, new RegExp(`^${RegExp.escape(registry)}/qiudeng7/kube-registry:\\d`));
    });
  }

  test("the webhook's and clash's former images count for them", async () => {
    const image = { repository: 'mirror.example/qiudeng7/kube-registry/x', tag: 'latest', pullPolicy: 'Always' };
    const manifests = await render({ values: { webhook: { image }, clash: { ...CLASH, image } } });
    assert.match(container(manifests, 'webhook').image, /^mirror\.example\/qiudeng7\/kube-registry:/);
    assert.match(container(manifests, 'registry', 'clash').image, /^mirror\.example\//);
    assert.match(container(manifests, 'registry').image, /^ghcr\.io\//);
  });
});

describe("the former chart's values", () => {
  const s3 = {
    config: { region: 'us-east-1', bucket: 'zot', regionEndpoint: 'http://minio:9000' },
    secret: { accessKeyId: 'id', secretAccessKey: 'key' },
  };

  test('zot.s3 is read as registry.s3, which wins', async () => {
    const former = at(configOf(await render({ values: { zot: { s3 } } }), 'registry'), 'registry.storage.s3');
    const renamed = at(configOf(await render({ values: { registry: { s3 } } }), 'registry'), 'registry.storage.s3');
    assert.deepEqual(former, renamed);
    const both = configOf(await render({ values: { zot: { s3 }, registry: { s3: { config: { bucket: 'new' } } } } }), 'registry');
    assert.equal(at(both, 'registry.storage.s3.bucket'), 'new');
  });

  test('an endpoint of zot.s3 without a scheme means https, as zot took it', async () => {
    for (const [regionEndpoint, endpoint] of [
      ['minio.example:9000', 'https://minio.example:9000'],
      ['http://minio.example:9000', 'http://minio.example:9000'],
    ]) {
      const values = { zot: { s3: { ...S3, config: { ...S3.config, regionEndpoint } } } };
      assert.equal(at(configOf(await render({ values }), 'registry'), 'registry.storage.s3.endpoint'), endpoint);
    }
  });

  test('the notes name values to rename, if there are any', async () => {
    const said = await notes({
      values: { zot: { s3, replicaCount: 1, service: { type: 'NodePort' }, image: { repository: 'm.example/x' } } },
    });
    for (const line of [
      /zot\.s3 → registry\.s3/,
      /zot\.replicaCount → registry\.replicas/,
      /zot\.service → registry\.service/,
      /zot\.image → global\.imageRegistry: m\.example/,
    ]) {
      assert.match(said, line);
    }
    assert.doesNotMatch(await notes(), /former chart/);
    assert.doesNotMatch(await notes({ values: { zot: { s3: { config: { bucket: '' } }, image: { repository: '' } } } }), /former chart/);
  });

  test("no object has a name and selector of the former chart's that would clash at an upgrade", async () => {
    const manifests = await render({ release: 'kube-registry' });
    assert.ok(!kinds(manifests).includes('Deployment kube-registry'));
  });
});

describe('watching it', () => {
  test('one ServiceMonitor for registry, clash and webhook, one PrometheusRule, and a dashboard for Grafana', async () => {
    const operator = { enabled: true, labels: { release: 'p' } };
    const values = { clash: CLASH, metrics: { serviceMonitor: operator, alerts: operator, dashboard: { enabled: true } } };
    const manifests = await render({ values });
    const monitor = find(manifests, 'ServiceMonitor');
    const selector = at(monitor, 'spec.selector.matchLabels') as Record<string, string>;
    const services = manifests.filter(
      ({ kind, metadata }) => kind === 'Service' && Object.entries(selector).every(([key, value]) => metadata.labels?.[key] === value),
    );
    assert.deepEqual(services.map(({ metadata }) => metadata.name).sort(), ['test-kube-registry-peers', 'test-kube-registry-webhook']);
    assert.equal(monitor.metadata.labels?.['release'], 'p');
    const rule = find(manifests, 'PrometheusRule');
    assert.equal(rule.metadata.labels?.['release'], 'p');
    const summary = at(rule, 'spec.groups.0.rules.4.annotations.summary');
    assert.equal(summary, 'Most requests to {{ $labels.upstream }} fail', 'for Prometheus to fill in');
    const dashboard = find(manifests, 'ConfigMap', '-dashboard')['data'] as Record<string, string>;
    assert.ok((at(JSON.parse(dashboard['kube-registry.json'] ?? ''), 'panels') as unknown[]).length > 5);
  });

  test('notes say how to see that it works', async () => {
    const said = await notes();
    for (const line of [
      /helm test test -n images/,
      /kubectl run hello/,
      /127\.0\.0\.1:25000\/dockerhub\/library\/nginx/,
      /default StorageClass/,
      /enforce=privileged/,
    ])
      assert.match(said, line);
  });

  test("notes say what the namespace must admit, when the webhook alone is in the nodes' network too", async () => {
    const webhook = { hostNetwork: true, reach: 'external', registryHost: 'registry.example.com' };
    assert.match(await notes({ values: { agent: { enabled: false }, webhook } }), /must allow the webhook/);
  });
});

describe('empty values', () => {
  test('an empty section or key means the default', async () => {
    const usual = await render();
    const sections = [
      'global',
      'image',
      'registry',
      'clash',
      'agent',
      'webhook',
      'objectStorage',
      'networkPolicy',
      'metrics',
      'openshift',
      'test',
      'zot',
    ];
    for (const section of sections) assert.deepEqual(await render({ values: { [section]: null } }), usual, section);
    const values = {
      image: { repository: '', pullPolicy: '' },
      registry: { s3: null, persistence: { size: null }, local: { size: '' }, service: null, exposed: null, config: null },
      agent: { port: null, mirror: null, crio: { directory: '' } },
      webhook: { tls: { existingSecret: null }, exclude: { namespaces: null }, reach: '' },
      metrics: { serviceMonitor: null },
    };
    assert.deepEqual(await render({ values }), usual);
  });

  test('resources and a class are none when they are null', async () => {
    const pod = podOf(find(await render({ values: { agent: { resources: null, priorityClassName: null } } }), 'DaemonSet'));
    assert.equal(pod['priorityClassName'], undefined);
    assert.deepEqual(pod.containers[0]?.['resources'], {});
    const limited = podOf(find(await render({ values: { agent: { resources: { limits: null } } } }), 'DaemonSet'));
    assert.equal(at(limited.containers[0], 'resources.limits'), undefined);
  });
});

describe('names and labels', () => {
  test('common labels are on all objects, but not in selectors', async () => {
    const given = {
      team: 'platform',
      'app.kubernetes.io/part-of': 'cluster',
      'app.kubernetes.io/component': 'x',
      'kube-registry/rewrite': 'true',
    };
    for (const manifest of await render({ values: { commonLabels: given } })) {
      const labels = [manifest.metadata.labels, at(manifest, 'spec.template.metadata.labels')].filter(Boolean) as Record<string, string>[];
      for (const found of labels) {
        assert.equal(found['team'], 'platform');
        assert.equal(found['app.kubernetes.io/part-of'], 'cluster');
        assert.notEqual(found['app.kubernetes.io/component'], 'x');
        assert.notEqual(found['kube-registry/rewrite'], 'true');
      }
    }
  });

  test('a release whose name begins with a digit has Services that may be', async () => {
    const manifests = await render({ release: '1st' });
    for (const { kind, metadata } of manifests) if (kind === 'Service') assert.match(metadata.name, /^[a-z][-a-z0-9]*$/);
    assert.ok(container(manifests, 'agent').args?.includes('agent.registry=http://$(R1ST_KUBE_REGISTRY_SERVICE_HOST):5000'));
  });
});
