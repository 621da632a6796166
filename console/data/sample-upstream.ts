import type { UpstreamReport } from './model.ts';

/** A direct upstream that answers, for tests. @param p50 its median response time in ms */
export function sampleUpstream(p50: number, requests = 7): UpstreamReport {
  return {
    name: 'ghcr',
    url: 'https://ghcr.io',
    hosts: ['ghcr.io'],
    proxy: 'direct',
    onProxyFailure: 'fail',
    mirrors: [],
    state: 'up',
    lastRequestAt: null,
    lastFailure: null,
    latency: { p50, p95: 2 * p50, requests },
    hour: { requests, failures: 0, bytes: 0 },
    rateLimit: null,
  };
}
