import type { ClashStatus } from '../../clash/supervise.ts';
import type { Log } from '../../telemetry/log.ts';
import { clashSchema, type ClashReport } from '../api/places.ts';
import { ApiFailure, type ApiHandlers } from '../api-server.ts';
import type { OtherReplicas } from '../replicas.ts';

export interface ClashHandlersOptions {
  /** URL of the sidecar's admin port; undefined: there is no sidecar. */
  url: string | undefined;
  replicas: OtherReplicas;
  log: Log;
}

const TIMEOUT_MS = 5000;
const MAX_NODES = 2000;
const NOTHING: ClashReport = {
  enabled: false,
  problem: null,
  mode: null,
  port: null,
  version: null,
  running: false,
  proven: false,
  restarts: 0,
  chosen: null,
  preferred: null,
  traffic: { uploadedBytes: 0, downloadedBytes: 0, connections: 0 },
  subscriptions: [],
  nodes: [],
  notes: [],
};

/** The clash proxy next to this replica. */
export function createClashHandlers({ url, replicas, log }: ClashHandlersOptions): Pick<ApiHandlers, 'clash' | 'chooseNode'> {
  async function ask(path: string, body?: unknown): Promise<unknown> {
    const { request } = await import('undici');
    const response = await request(`${url}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { 'content-type': 'application/json' },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new ApiFailure(response.statusCode < 500 ? 'BAD_REQUEST' : 'UNAVAILABLE', text.trim());
    return JSON.parse(text);
  }

  async function report(): Promise<ClashReport> {
    if (url === undefined) return NOTHING;
    try {
      return describe((await ask('/status')) as ClashStatus);
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      return { ...NOTHING, enabled: true, problem: `the proxy does not answer at ${url}: ${problem}` };
    }
  }

  return {
    clash: report,
    async chooseNode({ body, session, alone, token }) {
      if (url === undefined) throw new ApiFailure('NOT_FOUND', 'there is no clash proxy: registry.console.clash is not set');
      await ask('/node', body);
      if (!alone) {
        await replicas.ask('/api/actions/choose-node', clashSchema, { method: 'POST', body, token });
        log.info(
          { event: 'clash-node-chosen', user: session?.user, node: body.node },
          'a node of the clash proxy was chosen in the console',
        );
      }
      return report();
    },
  };
}

function describe(status: ClashStatus): ClashReport {
  const { mode, port, mihomo, config, chosen, preferred, traffic, subscriptions, nodes } = status;
  return {
    enabled: true,
    problem: config.problem ?? null,
    mode,
    port,
    version: mihomo.version,
    running: mihomo.running,
    proven: config.proven,
    restarts: mihomo.restarts,
    chosen: chosen ?? null,
    preferred: preferred ?? null,
    traffic: { uploadedBytes: traffic.uploaded, downloadedBytes: traffic.downloaded, connections: traffic.connections },
    subscriptions: subscriptions.map(({ name, fetchedAt, nodes, used, left, expires, problem }) => ({
      name,
      fetchedAt: fetchedAt ?? null,
      nodes,
      usedBytes: used ?? null,
      leftBytes: left ?? null,
      expires: expires ?? null,
      problem: problem ?? null,
    })),
    nodes: nodes.slice(0, MAX_NODES).map(({ name, type, subscription, alive, delay }) => ({
      name,
      type,
      subscription: subscription ?? null,
      alive: alive ?? null,
      delayMs: delay ?? null,
    })),
    notes: config.notes,
  };
}
