import { checkContainerd, checkDefaultHosts, checkWritable, type Problem } from '../../agent/check-node.ts';
import type { AgentConfig } from '../../config/schema.ts';
import { formatAddress } from '../../server/listen.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Metrics } from '../../telemetry/metrics.ts';

/** The reasons why this node's container runtime does not use the agent, as far as the configured
 *  folders show them.
 *  @param hostsDirectory a folder of hosts.toml files to check in addition to the configured
 *  ones */
export async function findNodeProblems(own: AgentConfig, hostsDirectory?: string): Promise<Problem[]> {
  const { mirror, crio, ownHosts } = own;
  const problems: Problem[] = [];
  if (mirror !== undefined) {
    const blocked = await checkWritable(mirror.directory);
    problems.push(...blocked, ...(blocked.length > 0 ? [] : await checkContainerd(mirror.directory)));
  }
  if (ownHosts !== undefined) problems.push(...(await checkWritable(ownHosts.directory)));
  if (crio !== undefined) problems.push(...(await checkWritable(crio.directory)));
  if (hostsDirectory !== undefined)
    problems.push(...(await checkDefaultHosts(hostsDirectory, formatAddress({ host: '127.0.0.1', port: own.listen.port }))));
  return problems;
}

/** Watches for node problems: each is logged once when it appears, and counted in a metric while it
 *  lasts. */
export function watchNodeProblems(own: AgentConfig, log: Log, metrics: Metrics): () => Promise<void> {
  let problems: Problem[] = [];
  metrics.table(
    'agent_node_problems',
    "1 for each kind of problem that keeps this node's container runtime from using the agent.",
    ['problem'],
    () => problems.map(({ kind }) => ({ labels: { problem: kind }, value: 1 })),
  );
  return async () => {
    const found = await findNodeProblems(own);
    for (const { kind, message } of found)
      if (!problems.some((known) => known.message === message)) log.warn({ event: 'node-problem', problem: kind }, message);
    if (found.length === 0 && problems.length > 0) log.info({ event: 'node-problems-gone' }, 'the container runtime can use the agent now');
    problems = found;
  };
}
