import { randomUUID } from 'node:crypto';
import { mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { ConfigError } from '../../config/load.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { importImages, type ImportedImage, type ImportResult } from '../../layout/import-images.ts';
import type { LayoutImage } from '../../layout/image-layout.ts';
import { isTag } from '../../oci/reference.ts';
import { servedHosts } from '../../oci/image-name.ts';
import type { Host } from '../command.ts';
import { formatBytes } from '../table.ts';
import { openStore } from '../wiring/storage.ts';
import { createProgress } from './progress.ts';
import { parseWarmName, type WarmName } from './warm-name.ts';

export interface ImportCommandOptions {
  /** A path; `-`: stdin. */
  file: string;
  /** The name of the file's only image; or its name without a tag, if the file contains only the
   *  tag. */
  name?: string;
  json: boolean;
}

/** `kube-registry cache import`: puts the images of a tar file into the store. 1: some could not be
 *  imported.
 *  @throws ConfigError: the file cannot be read, or contains several images although --name is set;
 *  OciError: the file is not an image layout, or the store cannot be written */
export async function cacheImport(host: Host, options: ImportCommandOptions): Promise<number> {
  const { config, stop, stdin, stdout, stderr } = host;
  const locate = createLocate(host, options.name);
  const store = await openStore(config.registry);
  const progress = createProgress(stderr);
  const bar = progress.start(options.file, 'bytes');
  try {
    const result = await importImages({
      file: options.file === '-' ? await spool(stdin, directoryOf(config.registry), stop) : options.file,
      store,
      locate,
      signal: stop,
      progress: bar.set,
    }).catch((error: unknown) => {
      throw (error as NodeJS.ErrnoException).syscall === 'open' && (error as NodeJS.ErrnoException).path === options.file
        ? new ConfigError(`found ${options.file}, which cannot be read (${(error as NodeJS.ErrnoException).code}); accepted: a tar file`)
        : error;
    });
    bar.end();
    progress.stop();
    stdout.write(options.json ? `${JSON.stringify(result, undefined, 2)}\n` : render(result));
    return result.images.some(({ outcome }) => outcome === 'failed') ? 1 : 0;
  } finally {
    progress.stop();
    await store.close();
  }
}

/** An archive is not read in the order of its bytes, so stdin is written to a file first. The file
 *  has no name: it is gone when it is closed, also if this process is killed. */
async function spool(stdin: NodeJS.ReadStream, directory: string, signal: AbortSignal): Promise<FileHandle> {
  await mkdir(directory, { recursive: true });
  const path = join(directory, `import-${randomUUID()}.tar`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await rm(path);
    await file.writeFile(stdin, { signal });
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** A directory with room for images. */
function directoryOf({ storage, local }: RegistryConfig): string {
  return storage.s3 === undefined ? (storage.filesystem?.directory ?? './data') : local.directory;
}

function createLocate({ config }: Host, given: string | undefined): (image: LayoutImage) => WarmName | undefined {
  const rules = { registryHost: config.webhook.registryHost, hosts: servedHosts(config.registry) };
  if (given !== undefined && parseWarmName(given, rules) === undefined) {
    throw new ConfigError(`--name: found ${given}; accepted: an image that is served, such as docker.io/library/nginx:1.27`);
  }
  return ({ name }) => {
    if (given === undefined) return name === undefined || isBareTag(name) ? undefined : parseWarmName(name, rules);
    const hasReference = /[:@][^/]+$/.test(given);
    return parseWarmName(hasReference || name === undefined || !isTag(name) ? given : `${given}:${name}`, rules);
  };
}

/** skopeo writes the text after the file's name: `oci-archive:x.tar:1.27` contains only the tag,
 *  without a repository. */
function isBareTag(name: string): boolean {
  return isTag(name) && !name.includes('/');
}

function render({ images, referrers, blobs, known, bytes, corrupt }: ImportResult): string {
  const lines = images.map(describe);
  const wrong = corrupt.map((digest) => `wrong bytes: ${digest}\n`);
  const done = images.filter(({ outcome }) => outcome !== 'failed').length;
  const signed = referrers === 0 ? '' : ` and ${referrers} referrers`;
  const were = known === 0 ? '' : `, ${known} of them were stored already`;
  return `${[...lines, ...wrong].join('')}imported ${done} of ${images.length} images${signed}, ${formatBytes(bytes)} in ${blobs} blobs${were}\n`;
}

function describe({ name, outcome, missing, error }: ImportedImage): string {
  const without = missing.length === 0 ? '' : `${outcome === 'sparse' ? ' without' : '; missing:'} ${missing.join(', ')}`;
  return `${outcome === 'failed' ? `failed    ${name}: ${error}` : `imported  ${name}`}${without}\n`;
}
