import { glob, readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';

/** The settings of containerd's configuration that concern hosts.toml files. */
export interface ContainerdConfig {
  /** `config_path` of the CRI plugin, '' if it is not set: a folder of hosts.toml files, or several
   *  with colons between them. */
  configPath: string;
  /** `config_path` of the transfer plugin, which pulls by CRI do not use. */
  transferConfigPath: string;
  /** Pulls go through containerd's older client (`use_local_image_pull`), which reads every folder
   *  of `config_path`. From 2.1 on the transfer service pulls, unless a setting is present that it
   *  does not support. */
  pullsLocally: boolean;
}

/** The tables of the CRI plugin's registry settings, in configurations of version 3, 2 and 1. */
const IMAGE_PLUGINS = ['io.containerd.cri.v1.images', 'io.containerd.grpc.v1.cri', 'cri'];
const TRANSFER_PLUGIN = 'io.containerd.transfer.v1.local';
const DEFAULT_CONCURRENT_DOWNLOADS = 3;

/** Reads `config.toml` in `folder` and the files that it imports, as far as they are visible here.
 *  @returns undefined if there is no such file, or it is not readable
 *  @throws Error: a file is not TOML */
export async function readContainerdConfig(folder: string): Promise<ContainerdConfig | undefined> {
  const file = join(folder, 'config.toml');
  const main = await readToml(file);
  if (main === undefined) return undefined;
  const documents = [main];
  for (const pattern of listOf(main['imports'])) {
    for await (const path of glob(isAbsolute(pattern) ? pattern : join(folder, pattern))) documents.push((await readToml(path)) ?? {});
  }
  // An imported file overrides the one that imports it.
  const last = (...keys: string[]) =>
    documents.map((document) => at(document, ['plugins', ...keys])).findLast((value) => value !== undefined);
  const ofImages = (...keys: string[]) => IMAGE_PLUGINS.map((plugin) => last(plugin, ...keys)).find((value) => value !== undefined);
  return {
    configPath: textOf(ofImages('registry', 'config_path')),
    transferConfigPath: textOf(last(TRANSFER_PLUGIN, 'config_path')),
    pullsLocally: pullsLocally(ofImages),
  };
}

/** As containerd 2.1 to 2.4 decide it (`CheckLocalImagePullConfigs` in
 *  internal/cri/config/config.go). */
function pullsLocally(ofImages: (...keys: string[]) => unknown): boolean {
  const isPresent = (value: unknown) => typeof value === 'object' && value !== null && Object.keys(value).length > 0;
  return (
    ofImages('use_local_image_pull') === true ||
    ofImages('discard_unpacked_layers') === true ||
    ofImages('image_pull_with_sync_fs') === true ||
    ofImages('disable_snapshot_annotations') === false ||
    Number(ofImages('max_concurrent_downloads') ?? DEFAULT_CONCURRENT_DOWNLOADS) !== DEFAULT_CONCURRENT_DOWNLOADS ||
    ['mirrors', 'configs', 'auths'].some((key) => isPresent(ofImages('registry', key)))
  );
}

type Table = Record<string, unknown>;

async function readToml(path: string): Promise<Table | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EISDIR', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
  try {
    return parse(text);
  } catch (cause) {
    throw new Error(`${path} is not TOML: ${(cause as Error).message.split('\n', 1)[0]}`, { cause });
  }
}

function at(table: Table, keys: readonly string[]): unknown {
  let value: unknown = table;
  for (const key of keys) value = typeof value === 'object' && value !== null ? (value as Table)[key] : undefined;
  return value;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function listOf(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
