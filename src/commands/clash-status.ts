import type { ClashStatus } from '../clash/supervise.ts';
import { ConfigError } from '../config/load.ts';
import { urlOf } from '../config/scalars.ts';
import { formatBytes, renderTable } from './table.ts';
import type { Host } from './command.ts';

const REQUEST_LIMIT_MS = 20_000;

/** `kube-registry clash status`: shows the status of the sidecar that runs with the same
 *  configuration.
 *  @throws ConfigError: no sidecar answers */
export async function clashStatus({ config, stdout }: Host, { json }: { json: boolean }): Promise<void> {
  const url = `${urlOf(config.clash.admin)}/status`;
  let status: ClashStatus;
  try {
    status = (await (await fetch(url, { signal: AbortSignal.timeout(REQUEST_LIMIT_MS) })).json()) as ClashStatus;
  } catch (cause) {
    throw new ConfigError(`no sidecar answers at ${url}: check that it runs with the same clash.admin`, { cause });
  }
  stdout.write(json ? `${JSON.stringify(status, undefined, 2)}\n` : renderStatus(status));
}

function renderStatus({ mode, mihomo, config, chosen, traffic, subscriptions, nodes }: ClashStatus): string {
  const facts = [
    ['mode', mode],
    ['mihomo', `${mihomo.version}, ${mihomo.running ? 'running' : 'not running'}, ${mihomo.restarts} restarts`],
    ['config', config.problem ?? (config.proven ? 'in use' : 'in use; no request has succeeded yet')],
    ['node', chosen ?? 'none: the proxy refuses connections'],
    ['traffic', `${formatBytes(traffic.downloaded)} down, ${formatBytes(traffic.uploaded)} up, ${traffic.connections} connections`],
  ];
  const tables = [
    facts.map(([name = '', value = '']) => `${name.padEnd(10)}${value}\n`).join(''),
    renderTable(
      ['SUBSCRIPTION', 'FETCHED', 'NODES', 'USED', 'LEFT', 'EXPIRES', 'PROBLEM'],
      subscriptions.map(({ name, fetchedAt, nodes, used, left, expires, problem }) => [
        name,
        fetchedAt ?? 'never',
        String(nodes),
        used === undefined ? '' : formatBytes(used),
        left === undefined ? '' : formatBytes(left),
        expires ?? '',
        problem ?? '',
      ]),
    ),
    renderTable(
      ['', 'NODE', 'SUBSCRIPTION', 'TYPE', 'DELAY'],
      nodes.map(({ name, subscription, type, alive, delay }) => [
        name === chosen ? '*' : '',
        name,
        subscription ?? '',
        type,
        alive === undefined ? 'not tested' : alive ? `${delay} ms` : 'dead',
      ]),
    ),
    config.notes.map((note) => `note: ${note}\n`).join(''),
  ];
  return tables.filter((text) => text !== '').join('\n');
}
