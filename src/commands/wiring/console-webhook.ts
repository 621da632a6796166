import { lookup } from 'node:dns/promises';
import type { WebhookReport } from '../../console/api/places.ts';

const TIMEOUT_MS = 2000;
const MAX_INSTANCES = 20;
const REVIEWS = /^kube_registry_reviews_total\{outcome="([^"]{1,100})"\} (\d+)$/gm;

type Instance = WebhookReport['instances'][number];

/** Reads the state of every webhook process from its metrics. */
export function askWebhook(url: string): (signal: AbortSignal) => Promise<Pick<WebhookReport, 'instances' | 'reviews'>> {
  const { hostname, port, protocol } = new URL(url);

  async function askOne(address: string, signal: AbortSignal): Promise<{ instance: Instance; metrics: string }> {
    const host = address.includes(':') ? `[${address}]` : address;
    const base = `${protocol}//${host}${port === '' ? '' : `:${port}`}`;
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
      const { request } = await import('undici');
      const [ready, metrics] = await Promise.all(['/readyz', '/metrics'].map((path) => request(base + path, { signal: limit })));
      await ready?.body.dump();
      return { instance: { address, ready: ready?.statusCode === 200, problem: null }, metrics: (await metrics?.body.text()) ?? '' };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      return { instance: { address, ready: false, problem: code ?? message }, metrics: '' };
    }
  }

  return async (signal) => {
    const found = await lookup(hostname.replace(/^\[|\]$/g, ''), { all: true }).catch((error: NodeJS.ErrnoException) => error);
    if (found instanceof Error)
      return { instances: [{ address: hostname, ready: false, problem: found.code ?? found.message }], reviews: [] };
    const addresses = [...new Set(found.map(({ address }) => address))].slice(0, MAX_INSTANCES);
    const answers = await Promise.all(addresses.map((address) => askOne(address, signal)));
    const reviews = new Map<string, number>();
    for (const { metrics } of answers) {
      for (const [, outcome = '', count] of metrics.matchAll(REVIEWS)) reviews.set(outcome, (reviews.get(outcome) ?? 0) + Number(count));
    }
    return { instances: answers.map(({ instance }) => instance), reviews: [...reviews].map(([outcome, count]) => ({ outcome, count })) };
  };
}
