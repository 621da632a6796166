import { isOciError } from '../oci/error.ts';
import type { Transport, TransportResponse } from './transport.ts';

/** How a request through a proxy went wrong. `cut`: the connection ended in the middle of a body;
 *  `silent`: the headers or the rest of a body did not come in time; `refused`: the answer was 403,
 *  429 or 5xx. */
export type ProxyOutcome = 'cut' | 'silent' | 'refused';

const PATH = '/kube-registry/downloads';
const LIMIT_MS = 2000;
/** How long no reports are sent to a proxy that does not support them. */
const PAUSE_MS = 600_000;
/** Hosts on which the sidecar can be. No report leaves this machine. */
const LOOPBACK = new Set(['127.0.0.1', 'localhost', '[::1]']);

/** Tells the clash sidecar, if `proxy` is one, how requests through it failed: it then tests the
 *  current node, and switches to another after two downloads that were cut or starved. The sidecar
 *  takes reports on its proxy port, as an HTTP server; any other proxy refuses them, and gets no
 *  more for ten minutes. */
export function withProxyReports(inner: Transport, proxy: string): Transport {
  const url = URL.canParse(proxy) ? new URL(proxy) : undefined;
  if (!inner.proxied || url?.protocol !== 'http:' || !LOOPBACK.has(url.hostname)) return inner;
  const report = createReporter(url.origin);
  return {
    ...inner,
    async request(options) {
      const { signal } = options;
      let response: TransportResponse;
      try {
        response = await inner.request(options);
      } catch (error) {
        if (ranOut(signal)) report('silent');
        throw error;
      }
      const { statusCode } = response;
      if (statusCode === 403 || statusCode === 429 || statusCode >= 500) report('refused');
      return { ...response, body: watched(response.body, signal, report) };
    },
  };
}

function watched(body: TransportResponse['body'], signal: AbortSignal, report: (outcome: ProxyOutcome) => void): TransportResponse['body'] {
  return {
    async pull() {
      try {
        return await body.pull();
      } catch (error) {
        if (!signal.aborted) report('cut');
        throw error;
      }
    },
    async close(aborted) {
      if (aborted && ranOut(signal)) report('silent');
      await body.close(aborted);
    },
  };
}

/** True if the request was given up because the upstream took too long, and not because the client
 *  left. */
function ranOut({ aborted, reason }: AbortSignal): boolean {
  return aborted && isOciError(reason, 'UNAVAILABLE') && reason.origin === 'upstream';
}

function createReporter(origin: string): (outcome: ProxyOutcome) => void {
  let pausedUntil = 0;

  async function send(outcome: ProxyOutcome): Promise<void> {
    const { request } = await import('undici');
    const { statusCode, body } = await request(origin + PATH, {
      method: 'POST',
      headers: { 'content-type': 'application/json', connection: 'close' },
      body: JSON.stringify({ outcome }),
      signal: AbortSignal.timeout(LIMIT_MS),
    });
    await body.dump();
    if (statusCode !== 204) pausedUntil = Date.now() + PAUSE_MS;
  }

  return (outcome) => {
    if (Date.now() < pausedUntil) return;
    send(outcome).catch(() => (pausedUntil = Date.now() + LIMIT_MS)); // the proxy is down: requests through it fail with that error
  };
}
