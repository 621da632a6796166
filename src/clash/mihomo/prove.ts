import { setTimeout as delay } from 'node:timers/promises';
import { ProxyAgent } from 'undici';
import type { Controller } from './controller.ts';

export interface ProveOptions {
  controller: Controller;
  /** The proxy's URL. */
  proxy: string;
  url: string;
  signal: AbortSignal;
}

const ATTEMPTS = 2;
/** Milliseconds. */
const TIME_LIMIT = 8000;
const PAUSE = 500;

/** Whether the health check's URL can be fetched through the proxy. All nodes of `group` are asked first, so that the fastest is
 *  chosen and none that is dead. Any answer will do: /v2/ says 401. */
export async function prove(group: string, { controller, proxy, url, signal }: ProveOptions): Promise<boolean> {
  if (group === '' || group === 'REJECT') return false;
  for (let attempt = 1; ; attempt++) {
    try {
      if ((await controller.test(group, url)) && (await answers(url, proxy, signal))) return true;
    } catch {
      // no way out: that is the answer
    }
    if (attempt >= ATTEMPTS || signal.aborted) return false;
    await delay(PAUSE, undefined, { signal }).catch(() => undefined); // stopped
  }
}

/** By a connection of its own: one that was there before the config changed would go on by the former node. */
async function answers(url: string, proxy: string, signal: AbortSignal): Promise<boolean> {
  const { origin, pathname, search } = new URL(url);
  const dispatcher = new ProxyAgent({ uri: proxy, proxyTunnel: true, connectTimeout: TIME_LIMIT });
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(TIME_LIMIT)]);
    const { body } = await dispatcher.request({ origin, path: pathname + search, method: 'GET', signal: limit });
    body.on('error', () => undefined).destroy();
    return true;
  } finally {
    await dispatcher.destroy();
  }
}
