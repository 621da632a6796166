import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetrics } from './metrics.ts';
import { createRegistryMetrics, noRegistryMetrics } from './registry-metrics.ts';

test('everything the registry counts appears in the Prometheus text format, under former names too', async () => {
  const metrics = await createMetrics();
  const registry = createRegistryMetrics(metrics);
  registry.answered('dockerhub', { kind: 'blob', status: 200, bytes: 100 });
  registry.answered('dockerhub', { kind: 'blob', status: 200, bytes: 50 });
  registry.read('dockerhub', 'manifest', 'hit');
  registry.observeUpstream('ghcr', 'limited', 0.2);
  registry.received('ghcr', 7);
  registry.downloadStarted('ghcr');
  registry.downloadStarted('ghcr');
  registry.downloadEnded('ghcr', 'stored');
  registry.rateLimit('dockerhub', { remaining: 93, limit: 100, windowSeconds: 21_600 });
  registry.uploadQueue(2, 2048);
  registry.storageError('write');
  registry.localTier(4096);
  registry.pruned(3, 300);
  registry.pruningFails(true);

  const text = await metrics.render();
  for (const line of [
    'kube_registry_http_requests_total{upstream="dockerhub",kind="blob",status="200"} 2',
    'kube_registry_answers_total{upstream="dockerhub",kind="blob",status="200"} 2',
    'kube_registry_sent_bytes_total{upstream="dockerhub"} 150',
    'kube_registry_cache_reads_total{upstream="dockerhub",kind="manifest",outcome="hit"} 1',
    'kube_registry_requests_total{upstream="dockerhub",kind="manifest",outcome="hit"} 1',
    'kube_registry_upstream_requests_total{upstream="ghcr",outcome="limited"} 1',
    'kube_registry_upstream_seconds_bucket{le="0.25",upstream="ghcr"} 1',
    'kube_registry_received_bytes_total{upstream="ghcr"} 7',
    'kube_registry_downloads_running 1',
    'kube_registry_fills_running 1',
    'kube_registry_downloads_total{upstream="ghcr",outcome="stored"} 1',
    'kube_registry_fills_total{upstream="ghcr",outcome="stored"} 1',
    'kube_registry_ratelimit_remaining{upstream="dockerhub"} 93',
    'kube_registry_upload_queue_blobs 2',
    'kube_registry_upload_queue_bytes 2048',
    'kube_registry_storage_errors_total{operation="write"} 1',
    'kube_registry_local_bytes 4096',
    'kube_registry_pruned_objects_total 3',
    'kube_registry_pruned_bytes_total 300',
    'kube_registry_pruning_failing 1',
  ]) {
    assert.ok(text.includes(`${line}\n`), `${line} in\n${text}`);
  }
  assert.match(text, /^process_cpu_seconds_total /m);
  assert.match(text, /^process_open_fds /m);
});

test('two sets of metrics in one process are independent', async () => {
  const [one, two] = await Promise.all([createMetrics(), createMetrics()]);
  createRegistryMetrics(one).storageError('read');
  createRegistryMetrics(two);
  assert.doesNotMatch(await two.render(), /operation="read"/);
});

test('the metrics for processes without metrics accept the same calls', () => {
  for (const count of Object.values(noRegistryMetrics)) assert.equal((count as () => unknown)(), undefined);
});
