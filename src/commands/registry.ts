import type { Host } from './command.ts';

/** `kube-registry registry`: serves until it is told to stop. */
export async function registry(host: Host): Promise<void> {
  host.log.info({ listen: host.config.registry.listen }, 'registry');
}
