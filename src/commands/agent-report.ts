import { renderTable } from './table.ts';
import type { Host } from './command.ts';
import { findNodeProblems } from './wiring/node-problems.ts';

export interface AgentReportOptions {
  /** Print JSON, for programs. */
  json: boolean;
  /** A folder of hosts.toml files to check in addition to the configured ones. */
  hostsDirectory?: string;
}

/** `kube-registry agent report`: checks whether this node's container runtime uses the agent, and
 *  if not, shows what to change. */
export async function agentReport({ config, stdout }: Host, { json, hostsDirectory }: AgentReportOptions): Promise<void> {
  const problems = await findNodeProblems(config.agent, hostsDirectory);
  if (json) stdout.write(`${JSON.stringify(problems, undefined, 2)}\n`);
  else if (problems.length === 0) stdout.write('No problem found on this node.\n');
  else
    stdout.write(
      renderTable(
        ['PROBLEM', 'WHAT TO DO'],
        problems.map(({ kind, message }) => [kind, message]),
      ),
    );
}
