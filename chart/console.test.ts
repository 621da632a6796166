import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, configOf, find, notes, podOf, render } from './render.ts';

const USERS = { users: { htpasswd: 'admin:$2y$05$hash' } };

test('the console is reached by port-forward alone, lists pods when it may, and knows where webhook, agents and clash are', async () => {
  const clash = { enabled: true, subscriptionUrl: 'https://example.com/sub' };
  const manifests = await render({ values: { clash, console: { pods: true } } });
  assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.console'), {
    enabled: true,
    pods: true,
    clash: 'http://127.0.0.1:5003',
    webhook: 'http://test-kube-registry-webhook:8444',
    agents: { namespace: 'images', daemonSet: 'test-kube-registry-agent' },
  });
  assert.deepEqual(at(find(manifests, 'ClusterRole', '-registry'), 'rules.0.resources'), ['pods']);
  assert.equal(podOf(find(manifests, 'Deployment', '-registry')).automountServiceAccountToken, true);
  assert.ok(!manifests.some(({ kind }) => ['Ingress', 'HTTPRoute'].includes(kind)));
  assert.ok(!manifests.some(({ kind, metadata }) => kind === 'Service' && metadata.name.endsWith('-console')));
  assert.equal(at(configOf(await render(), 'registry'), 'registry.console.pods'), undefined);
  assert.match(
    await notes(),
    /port-forward deployment\/test-kube-registry-registry 5001.*\n? ?\(to make changes there, set console\.users;/,
  );
});

test('a console that lists pods knows the rules of rewriting, in each mode', async () => {
  const exclude = { extraNamespaces: ['team-*'], images: ['docker.io/acme/*'] };
  for (const mode of ['webhook', 'policy']) {
    const values = { console: { pods: true }, webhook: { mode, exclude } };
    const webhook = at(configOf(await render({ kubeVersion: '1.36.0', values }), 'registry'), 'webhook');
    assert.deepEqual(at(webhook, 'exclude.images'), ['docker.io/acme/*'], mode);
    assert.ok((at(webhook, 'exclude.namespaces') as string[]).includes('team-*'), mode);
    assert.equal(at(webhook, 'watchPods'), undefined, 'it counts only with registry.serviceAccount.listPods');
  }
});

test('an Ingress and an HTTPRoute lead to a separate listener that requires a login', async () => {
  const ingress = { enabled: true, host: 'images.example.com', tlsSecret: 'images-tls', className: 'nginx' };
  const httpRoute = { enabled: true, parentRefs: [{ name: 'gateway' }], hostnames: ['images.example.com'] };
  const manifests = await render({ values: { console: { ...USERS, ingress, httpRoute } } });
  const config = configOf(manifests, 'registry');
  assert.equal(at(config, 'registry.console.listen'), '0.0.0.0:5002');
  assert.equal(at(config, 'registry.console.users'), '/run/secrets/kube-registry/console/htpasswd');
  assert.equal(at(find(manifests, 'Secret', '-console'), 'data.htpasswd'), Buffer.from('admin:$2y$05$hash').toString('base64'));
  const service = find(manifests, 'Service', '-console');
  assert.deepEqual(at(service, 'spec.ports.0'), { name: 'console', port: 80, targetPort: 'console' });
  const rendered = find(manifests, 'Ingress', '-console');
  assert.deepEqual(at(rendered, 'spec.tls'), [{ hosts: ['images.example.com'], secretName: 'images-tls' }]);
  assert.equal(at(rendered, 'spec.rules.0.http.paths.0.backend.service.name'), service.metadata.name);
  assert.equal(at(rendered, 'spec.ingressClassName'), 'nginx');
  const route = find(manifests, 'HTTPRoute', '-console');
  assert.deepEqual(at(route, 'spec.parentRefs'), [{ name: 'gateway' }]);
  assert.deepEqual(at(route, 'spec.rules.0.backendRefs.0'), { name: service.metadata.name, port: 80 });
});

test('without the console, none of its objects is rendered', async () => {
  const manifests = await render({ values: { console: { enabled: false, ...USERS } } });
  assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.console'), { enabled: false });
  assert.ok(!manifests.some(({ metadata }) => metadata.name.endsWith('-console')));
  assert.ok(!manifests.some(({ kind, metadata }) => kind === 'ClusterRole' && metadata.name.endsWith('-registry')));
});
