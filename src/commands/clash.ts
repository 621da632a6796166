import { once } from 'node:events';
import { chooseNodeHandler } from '../clash/choose-node.ts';
import { createClashMetrics } from '../clash/metrics.ts';
import { superviseClash, type ClashStatus } from '../clash/supervise.ts';
import { ClashError } from '../clash/subscription/document.ts';
import type { Way } from '../clash/subscription/download.ts';
import { ConfigError } from '../config/load.ts';
import type { ClashConfig } from '../config/schema.ts';
import { createTransport } from '../http/undici-transport.ts';
import { serveAdmin } from '../server/admin.ts';
import { listen, type RequestHandler } from '../server/listen.ts';
import type { Status } from '../server/status-page.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import type { Host } from './command.ts';

/** `kube-registry clash`: runs mihomo with a config made of subscriptions, until `stop`.
 *  @throws ConfigError: there is no subscription or config, or no mihomo, or a port is taken;
 *  OciError UNAVAILABLE: the admin address cannot be listened on */
export async function clash({ config, log, stop, env }: Host): Promise<void> {
  const { clash: own } = config;
  checkSources(own);
  const metrics = await createMetrics();
  let latest: ClashStatus | undefined;
  const counts = createClashMetrics(metrics, () => latest);
  const ways = new Map<string, Way>();
  const wayOf = (proxy: string): Way => {
    const way = ways.get(proxy) ?? createWay(proxy);
    ways.set(proxy, way);
    return way;
  };
  const running = await superviseClash({ own, wayOf, log, env, signal: stop, counted: (outcome) => counts.counted(outcome) }).catch(
    asConfigError,
  );
  const status = async (): Promise<ClashStatus> => (latest = await running.status());
  const admin = serveAdmin({
    ready: () => running.ready(),
    metrics: async () => (await status(), metrics.render()),
    status: async () => ({ title: 'clash', ...(await status()) }) as unknown as Status,
  });
  const chooseNode = chooseNodeHandler(running);
  const handler: RequestHandler = (request, response) => (chooseNode(request.url ?? '', request) ?? admin)(request, response);
  const listener = await listen({ address: own.admin, handler, log });
  log.info({ event: 'clash-starting', admin: listener.url, mode: own.mode, proxy: own.ports.proxy }, 'starting the proxy');
  if (!stop.aborted) await once(stop, 'abort');
  await running.ended;
  await listener.close();
}

function checkSources({ mode, subscriptions, configFile }: ClashConfig): void {
  if (mode === 'custom') {
    if (configFile === undefined)
      throw new ConfigError('clash.configFile: found nothing; accepted: the path of a mihomo config, since clash.mode is custom');
  } else if (subscriptions.length === 0) {
    throw new ConfigError(
      `clash.subscriptions: found nothing; accepted: at least one { name, url } or { name, urlFile }, since clash.mode is ${mode}`,
    );
  }
}

function createWay(proxy: string): Way {
  return {
    open: createTransport({ proxy }).openDispatcher,
    openOutside: createTransport({ proxy, externalOnly: true }).openDispatcher,
  };
}

function asConfigError(error: unknown): never {
  if (error instanceof ClashError) throw new ConfigError(error.message);
  throw error;
}
