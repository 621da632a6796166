import module from 'node:module';
import { Command, Option } from 'commander';
import own from '../package.json' with { type: 'json' };
import { addCache } from './commands/cache/cache.ts';
import type { Host } from './commands/command.ts';
import { ConfigError, loadConfig } from './config/load.ts';
import { isOciError } from './oci/error.ts';
import { createLog } from './telemetry/log.ts';

interface GlobalOptions {
  config?: string;
  set: string[];
}

/** Restarts this program in the same process (execve), for commands that run on many nodes and are
 *  mostly idle: with a small young generation of V8, and with all code in the compile cache, because
 *  the type stripper that sources need takes some 20 MB permanently (docs/decisions/lean-agent.md).
 *  `late`: load the modules that the command loads later, if at all. */
async function becomeLean(...late: (() => Promise<unknown>)[]): Promise<void> {
  const flag = '--max-semi-space-size=1';
  if (process.execArgv.includes(flag)) return;
  await Promise.all([import('prom-client'), ...late.map((load) => load())]);
  module.flushCompileCache();
  const args = [process.execPath, flag, import.meta.filename, ...process.argv.slice(2)];
  // glibc would create a separate arena for each of V8's threads, and keep memory that was freed
  // there.
  process.execve?.(process.execPath, args, { ...(process.env as Record<string, string>), MALLOC_ARENA_MAX: '1' });
}

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    stop.abort();
    process.once(signal, () => process.exit(1)); // the second signal: exit at once
  });
}

// The reader may stop early: `… | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

const program = new Command('kube-registry')
  .description('Image pulls for a Kubernetes cluster: a pull-through registry, its node agent, its webhook and its proxy')
  .addOption(new Option('--config <file>', 'YAML configuration file').env('KUBE_REGISTRY_CONFIG'))
  .version(own.version)
  .option(
    '--set <key=value>',
    'override one key of the configuration file; may be repeated',
    (value: string, all: string[]) => [...all, value],
    [],
  )
  .enablePositionalOptions(false)
  .configureHelp({ showGlobalOptions: true })
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));

/** `output`: where the log goes. */
async function run<Result>(command: (host: Host) => Promise<Result>, output: NodeJS.WriteStream = process.stdout): Promise<Result> {
  const { config: file, set } = program.opts<GlobalOptions>();
  const config = await loadConfig({ file, set });
  const readable = config.log.format === 'text' || (config.log.format === 'auto' && output.isTTY);
  const log = await createLog({ level: config.log.level, readable }, output);
  const { stdout, stderr, stdin, env } = process;
  return command({ config, log, stop: stop.signal, stdout, stderr, stdin, env });
}

program
  .command('registry')
  .description('the pull-through registry')
  .action(async () => run((await import('./commands/registry.ts')).registry));

const agent = program
  .command('agent')
  .description('the agent on every node: 127.0.0.1:25000')
  .option('--remove', 'remove the files that an agent wrote for the container runtime, and exit')
  .action(async ({ remove = false }: { remove?: boolean }) => {
    const { agent, removeAgentFiles } = await import('./commands/agent.ts');
    if (!remove) await becomeLean(() => import('./nearest/sharing.ts'));
    await run(remove ? removeAgentFiles : agent);
  });

agent
  .command('report')
  .description("check whether this node's container runtime uses the agent, and show what to change if not")
  .option('--json', 'print JSON')
  .option('--hosts-directory <folder>', "a directory of hosts.toml files to check as well, such as containerd's certs.d")
  .action(async ({ json = false, hostsDirectory }: { json?: boolean; hostsDirectory?: string }) => {
    const { agentReport } = await import('./commands/agent-report.ts');
    await run((host) => agentReport(host, { json, ...(hostsDirectory === undefined ? {} : { hostsDirectory }) }));
  });

const webhook = program
  .command('webhook')
  .description('the admission webhook: rewrites the images of new pods')
  .action(async () => {
    const { webhook } = await import('./commands/webhook.ts');
    await becomeLean(
      () => import('./kubernetes/client.ts'),
      () => import('undici'),
      () => import('./webhook/gate.ts'),
      () => import('./webhook/self-certified.ts'),
    );
    await run(webhook);
  });

webhook
  .command('report')
  .description('list the images of pods that are not rewritten, and why')
  .option('--rewritten', 'list rewritten images instead')
  .option('--json', 'print JSON')
  .option('--pods <file>', 'read the output of `kubectl get pods -A -o json` from a file instead of asking the cluster; - is stdin')
  .action(async ({ json = false, rewritten = false, pods }: { json?: boolean; rewritten?: boolean; pods?: string }) => {
    const { webhookReport } = await import('./commands/webhook-report.ts');
    await run((host) => webhookReport(host, { json, rewritten, ...(pods === undefined ? {} : { pods }) }));
  });

const clash = program
  .command('clash')
  .description('the proxy: mihomo, with a config built from subscriptions')
  .action(async () => run((await import('./commands/clash.ts')).clash));

clash
  .command('status')
  .description('show proxy nodes, their delays, the one in use, and traffic')
  .option('--json', 'print JSON')
  .action(async ({ json = false }: { json?: boolean }) => {
    const { clashStatus } = await import('./commands/clash-status.ts');
    await run((host) => clashStatus(host, { json }));
  });

addCache(program, async (command) => {
  process.exitCode = await run(command, process.stderr);
});

try {
  await program.parseAsync();
} catch (error) {
  const expected = error instanceof ConfigError || isOciError(error) || (stop.signal.aborted && error === stop.signal.reason);
  const message = error instanceof Error ? (expected ? error.message : (error.stack ?? error.message)) : String(error);
  process.stderr.write(`kube-registry: ${message}\n`);
  process.exit(error instanceof ConfigError ? 2 : 1);
}
