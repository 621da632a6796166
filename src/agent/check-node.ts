import { access, constants } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeDirectory } from '../io/make-directory.ts';
import { readContainerdConfig, type ContainerdConfig } from './containerd-config.ts';
import { hostFolder } from './node-files.ts';

/** Why the container runtime of this node does not use the agent. These are values of a metric
 *  label: the set is fixed. */
export type ProblemKind =
  | 'folder-not-writable'
  | 'config-not-readable'
  | 'config-path-unset'
  | 'config-path-elsewhere'
  | 'config-path-two-folders'
  | 'default-hosts';

export interface Problem {
  kind: ProblemKind;
  /** The problem, and how to fix it. */
  message: string;
}

/** Checks that the agent can write into a directory of the node. */
export async function checkWritable(directory: string): Promise<Problem[]> {
  try {
    await makeDirectory(directory);
    await access(directory, constants.W_OK);
    return [];
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const message = `${directory} cannot be written (${code}): mount the node's directory there, writable, and run the agent as a user who may write it`;
    return [{ kind: 'folder-not-writable', message }];
  }
}

/** Checks that containerd reads hosts.toml files in `directory`, by the config.toml next to it.
 *
 *  The rules are from containerd's source, and were confirmed by pulls. Releases 1.6 to 2.0 split
 *  `config_path` at colons and look into each folder. From 2.1 on the transfer service pulls, which
 *  takes the whole value for one folder: with two folders it reads neither. 2.2 to 2.4 have two
 *  folders by default. `config_path` of the transfer plugin itself does not apply to pulls by the
 *  kubelet. */
export async function checkContainerd(directory: string): Promise<Problem[]> {
  const folder = dirname(directory);
  const file = join(folder, 'config.toml');
  const fix = `set config_path = "${directory}" under [plugins."io.containerd.cri.v1.images".registry] (in a file of version 2: [plugins."io.containerd.grpc.v1.cri".registry]) in ${file}, and restart containerd`;
  let config: ContainerdConfig | undefined;
  try {
    config = await readContainerdConfig(folder);
  } catch (error) {
    return [{ kind: 'config-not-readable', message: `${(error as Error).message}: cannot tell whether containerd reads ${directory}` }];
  }
  const problem = config === undefined ? withoutConfig(file, fix) : judge(config, directory, fix);
  return problem === undefined ? [] : [problem];
}

function withoutConfig(file: string, fix: string): Problem {
  const message = `${file} does not exist or cannot be read; without a configuration, containerd reads no hosts.toml files, and no pull goes through the agent: ${fix}`;
  return { kind: 'config-path-unset', message };
}

function judge({ configPath, transferConfigPath, pullsLocally }: ContainerdConfig, directory: string, fix: string): Problem | undefined {
  const folders = configPath.split(':').filter((path) => path !== '');
  const isRead = folders.map(withoutSlash).includes(withoutSlash(directory));
  if (isRead && (folders.length === 1 || pullsLocally)) return undefined;
  if (isRead) {
    const message = `containerd 2.1 and later take config_path = "${configPath}" for one folder and read no hosts.toml files, so no pull goes through the agent: ${fix}`;
    return { kind: 'config-path-two-folders', message };
  }
  if (folders.length > 0) {
    const message = `containerd reads hosts.toml files in ${folders.join(' and ')}, not in ${directory}: ${fix}, or set agent.mirror.directory`;
    return { kind: 'config-path-elsewhere', message };
  }
  const transfer = transferConfigPath === '' ? '' : ' (config_path of the transfer plugin does not count for pulls by the kubelet)';
  const message = `containerd reads no hosts.toml files while config_path is unset: releases before 2.2 have no default, and later ones take their default, which names two folders, for one folder${transfer}. No pull goes through the agent: ${fix}`;
  return { kind: 'config-path-unset', message };
}

/** Checks that a `_default/hosts.toml` in `directory` does not redirect pulls of `agent`, the
 *  agent's own `host:port`, which rewritten images name: containerd applies it to every host
 *  without a folder. */
export async function checkDefaultHosts(directory: string, agent: string): Promise<Problem[]> {
  const exists = (path: string) =>
    access(path).then(
      () => true,
      () => false,
    );
  const own = join(directory, hostFolder(agent), 'hosts.toml');
  if (!(await exists(join(directory, '_default', 'hosts.toml'))) || (await exists(own)) || (await exists(join(directory, agent))))
    return [];
  const message = `${directory}/_default/hosts.toml redirects pulls of ${agent} too, so rewritten images do not come from the agent: set agent.ownHosts.directory = "${directory}", or write ${own} with the lines: server = "http://${agent}" and [host."http://${agent}"]`;
  return [{ kind: 'default-hosts', message }];
}

function withoutSlash(path: string): string {
  return path.replace(/\/+$/, '');
}
