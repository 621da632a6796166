import { Option, type Command } from 'commander';
import { z } from 'zod';
import { ConfigError } from '../../config/load.ts';
import { duration, size } from '../../config/scalars.ts';
import type { Host } from '../command.ts';
import type { LsOptions } from './ls.ts';

/** Runs a command of `cache`; its number is the program's exit code. */
type Run = (command: (host: Host) => Promise<number>) => Promise<void>;

const EXIT_CODES = `
Exit codes: 0 all is well; 1 something was found wrong or has failed; 2 wrong usage or configuration.`;

/** `kube-registry cache …`: the commands for the store. Each is loaded only when it is run. */
export function addCache(program: Command, run: Run): void {
  const cache = program.command('cache').description('manage stored images: list, measure, download, verify, prune, export, import');
  addReaders(cache, run);
  addWarm(cache, run);
  addArchives(cache, run);
  cache
    .command('prune')
    .description('remove images beyond the limits of size and age, least recently used first, and blobs that no image names')
    .option('--dry-run', 'show what would be removed, and remove nothing')
    .option('--max-size <size>', 'size of the store, such as 100GiB; instead of registry.cache.maxSize')
    .option('--max-age <duration>', 'remove images that were not pulled for this long, such as 30d; instead of registry.cache.maxAge')
    .option('--min-age <duration>', 'keep what was stored or pulled within this time (default: 24h)')
    .option('--force', 'remove even more than registry.cache.maxPruneShare allows in one run')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (given: { dryRun?: boolean; force?: boolean; maxSize?: string; maxAge?: string; minAge?: string; json?: boolean }) => {
      const options = {
        dryRun: given.dryRun === true,
        force: given.force === true,
        json: given.json === true,
        ...optional('maxSize', parse(size, '--max-size', given.maxSize)),
        ...optional('maxAge', parse(duration, '--max-age', given.maxAge)),
        ...optional('minAge', parse(duration, '--min-age', given.minAge)),
      };
      const { cachePrune } = await import('./prune.ts');
      await run((host) => cachePrune(host, options));
    });
}

function addReaders(cache: Command, run: Run): void {
  cache
    .command('ls')
    .argument('[pattern...]', 'globs of names such as dockerhub/library/nginx:1.27; a star matches slashes as well')
    .description('list images: platforms, sizes, last use, and on how many days they were pulled')
    .addOption(new Option('--sort <column>', 'sort by this column').choices(['used', 'name', 'size', 'unique', 'days']).default('used'))
    .option('--all', 'list each platform of an index as well')
    .option('--gone', 'list only images with a tag that the upstream has deleted')
    .option('--hosted', 'list only images that were pushed to repositories of registry.hosted')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (patterns: string[], given: Pick<LsOptions, 'sort'> & Partial<Pick<LsOptions, 'all' | 'gone' | 'hosted' | 'json'>>) => {
      const { cacheLs } = await import('./ls.ts');
      await run((host) => cacheLs(host, { all: false, gone: false, hosted: false, json: false, ...given, patterns }));
    });
  cache
    .command('check')
    .argument('<image>', 'as pods name it: nginx:1.27, ghcr.io/owner/name@sha256:…')
    .description('show whether the registry would serve an image: the rule that decides, the stored copy, and the answer of the upstream')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (image: string, { json = false }: { json?: boolean }) => {
      const { cacheCheck } = await import('./check.ts');
      await run((host) => cacheCheck(host, { image, json }));
    });
  cache
    .command('stat')
    .description('show how much is stored per upstream, and the limits')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async ({ json = false }: { json?: boolean }) => {
      const { cacheStat } = await import('./stat.ts');
      await run((host) => cacheStat(host, { json }));
    });
  cache
    .command('verify')
    .description('check every blob against its digest, and check that everything that images name is stored')
    .option('--repair', 'download wrong or missing blobs again from the upstreams')
    .option('--parallel <count>', 'how many blobs to read at once', '4')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (given: { repair?: boolean; parallel: string; json?: boolean }) => {
      const { cacheVerify } = await import('./verify.ts');
      const parallel = count('--parallel', given.parallel);
      await run((host) => cacheVerify(host, { repair: given.repair === true, parallel, json: given.json === true }));
    });
}

interface WarmArguments {
  file?: string;
  cluster?: boolean;
  pods?: string;
  registry?: string;
  platform?: string;
  parallel: string;
  json?: boolean;
}

function addWarm(cache: Command, run: Run): void {
  cache
    .command('warm')
    .argument('[image...]', 'names as in pods: nginx:1.27, ghcr.io/a/b@sha256:…, or already rewritten')
    .description('pull images through the running registry, so that nodes find them cached')
    .option('--file <file>', 'a file with one image per line; - is stdin')
    .option('--cluster', 'pull all images that pods of the cluster use')
    .option('--pods <file>', 'pull all images in the output of `kubectl get pods -A -o json`; - is stdin')
    .option('--registry <url>', 'URL of the registry (default: registry.listen of the configuration, on this machine)')
    .option('--platform <list>', "linux/amd64,linux/arm64 or all (default: this machine's)")
    .option('--parallel <count>', 'how many images to pull at once', '4')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (images: string[], given: WarmArguments) => {
      const { cacheWarm } = await import('./warm.ts');
      const options = {
        images,
        cluster: given.cluster === true,
        json: given.json === true,
        parallel: count('--parallel', given.parallel),
        ...optional('file', given.file),
        ...optional('pods', given.pods),
        ...optional('registry', given.registry),
        ...optional('platforms', given.platform?.split(',')),
      };
      await run((host) => cacheWarm(host, options));
    });
}

function addArchives(cache: Command, run: Run): void {
  cache
    .command('export')
    .argument('<image...>', 'as pods name them: nginx:1.27, ghcr.io/owner/name@sha256:…')
    .description('write images to a tar file (an OCI image layout), for a cluster without internet access')
    .requiredOption('--output <file>', 'the tar file, which appears when it is complete; - is stdout')
    .option('--platform <list>', 'linux/amd64,linux/arm64 (default: all platforms of an index)')
    .option('--referrers', 'export signatures, SBOMs and other referrers as well')
    .option('--registry <url>', 'URL of the registry to read from (default: registry.listen of the configuration; without one, the store)')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(
      async (images: string[], given: { output: string; platform?: string; referrers?: boolean; registry?: string; json?: boolean }) => {
        const { cacheExport } = await import('./export.ts');
        const options = {
          images,
          output: given.output,
          referrers: given.referrers === true,
          json: given.json === true,
          ...optional('platforms', given.platform?.split(',')),
          ...optional('registry', given.registry),
        };
        await run((host) => cacheExport(host, options));
      },
    );
  cache
    .command('import')
    .argument('<file>', 'a tar file with an OCI image layout, as written by cache export, skopeo (oci-archive) or docker save; - is stdin')
    .description('put the images of a tar file into the store; the registry then serves them without asking their upstreams')
    .option('--name <image>', 'the name of the image, if the file has none or only a tag')
    .option('--json', 'print JSON')
    .addHelpText('after', EXIT_CODES)
    .action(async (file: string, given: { name?: string; json?: boolean }) => {
      const { cacheImport } = await import('./import.ts');
      await run((host) => cacheImport(host, { file, json: given.json === true, ...optional('name', given.name) }));
    });
}

/** @throws ConfigError */
function parse(kind: typeof size | typeof duration, option: string, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const result = kind.safeParse(value);
  if (result.success) return result.data;
  const accepted = kind === size ? 'a size such as 64MiB or 100GiB' : 'a duration such as 12h or 30d';
  throw new ConfigError(`${option}: found ${JSON.stringify(value)}; accepted: ${accepted}`);
}

function count(option: string, value: string): number {
  const result = z.coerce.number().int().min(1).max(64).safeParse(value);
  if (result.success) return result.data;
  throw new ConfigError(`${option}: found ${JSON.stringify(value)}; accepted: a number from 1 to 64`);
}

function optional<Name extends string, Value>(name: Name, value: Value | undefined): Partial<Record<Name, Value>> {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, Value>);
}
