import { setTimeout as delay } from 'node:timers/promises';
import { ProxyAgent } from 'undici';
import { fieldsOf } from '../../io/untrusted.ts';
import type { Instance } from './instance.ts';

export interface ProveOptions {
  /** The settings for testing nodes. */
  url: string;
  signal: AbortSignal;
}

const MAX_ATTEMPTS = 2;
const REQUEST_LIMIT_MS = 8000;
const PAUSE_MS = 500;
/** mihomo refuses connections until it has read the rule sets of its config. */
const LOADING_LIMIT_MS = 60_000;

/** Whether a request gets through this mihomo: a node has passed its test, and the health check's
 *  URL can be fetched. Any response counts there, since rules may route that URL around the
 *  group. */
export async function prove({ spec, ports, steering }: Instance, { url, signal }: ProveOptions): Promise<boolean> {
  if (spec.main === '' || spec.main === 'REJECT') return false;
  const loads = Object.keys(fieldsOf(spec.config['rule-providers'])).length > 0;
  const until = Date.now() + (loads ? LOADING_LIMIT_MS : 0);
  for (let attempt = 1; !signal.aborted; attempt++) {
    const settled = await steering.settle();
    if (settled !== 'dead' && (await answers(url, `http://127.0.0.1:${ports.proxy}`, signal).catch(() => false))) return true;
    if (attempt >= MAX_ATTEMPTS && (settled === 'dead' || Date.now() > until)) return false;
    await delay(PAUSE_MS, undefined, { signal }).catch(() => undefined); // stopped
  }
  return false;
}

/** Uses a new connection: a kept-alive one would continue through the former node. */
async function answers(url: string, proxy: string, signal: AbortSignal): Promise<boolean> {
  const { origin, pathname, search } = new URL(url);
  const dispatcher = new ProxyAgent({ uri: proxy, proxyTunnel: true, connectTimeout: REQUEST_LIMIT_MS });
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(REQUEST_LIMIT_MS)]);
    const { body } = await dispatcher.request({ origin, path: pathname + search, method: 'GET', signal: limit });
    body.on('error', () => undefined).destroy();
    return true;
  } finally {
    await dispatcher.destroy();
  }
}
