import { setTimeout as delay } from 'node:timers/promises';
import { formatBytes, renderTable } from '../table.ts';
import { takeLease, type Lease } from '../../upkeep/lease.ts';
import { prune, type PruneResult } from '../../upkeep/prune.ts';
import type { Store } from '../../store/store.ts';
import type { UploadStore } from '../../store/upload-store.ts';
import type { Host } from '../command.ts';
import { createProgress, type Bar } from './progress.ts';
import { applyRetentionRules, createRegistries } from '../wiring/hosted.ts';
import { createKeepOf } from '../wiring/keep.ts';
import { pruneLimits } from '../wiring/prune-limits.ts';
import { openStore } from '../wiring/storage.ts';

export interface PruneCommandOptions {
  dryRun: boolean;
  json: boolean;
  /** Ignores registry.cache.maxPruneShare. */
  force: boolean;
  /** Replace those of the configuration; bytes and milliseconds. */
  maxSize?: number;
  maxAge?: number;
  /** Content that was stored or pulled within this time stays; milliseconds. */
  minAge?: number;
}

/** `kube-registry cache prune`: runs the registry's background pruning now. @throws OciError
 *  UNAVAILABLE */
export async function cachePrune(host: Host, options: PruneCommandOptions): Promise<number> {
  const { config, stop, stdout, stderr, env } = host;
  const { dryRun, json, force, maxSize, maxAge, minAge } = options;
  const { storage, cache } = config.registry;
  const store = await openStore(config.registry);
  const configured = pruneLimits({ storage, cache: { ...cache, maxSize: maxSize ?? cache.maxSize, maxAge: maxAge ?? cache.maxAge } });
  const progress = createProgress(stderr);
  let lease: Lease | undefined;
  let finished = false;
  try {
    lease = dryRun
      ? undefined
      : await waitForLease(store, stop, (holder) => stderr.write(`${holder} is pruning; waiting until it has finished\n`));
    const signal = lease === undefined ? stop : AbortSignal.any([stop, lease.signal]);
    await retain(host, { store, dryRun, signal });
    const bars = createBars((name) => progress.start(name));
    const result = await prune(store, {
      dryRun,
      maxShare: force ? 1 : cache.maxPruneShare,
      signal,
      async limits(stored) {
        const limits = await configured(stored);
        return minAge === undefined ? limits : { ...limits, grace: minAge };
      },
      keep: createKeepOf(config, { env, store }),
      progress: bars.show,
    });
    finished = true;
    bars.end();
    progress.stop();
    stdout.write(json ? `${JSON.stringify(plain(result), undefined, 2)}\n` : render(result, dryRun));
    return result.overLimit ? 1 : 0;
  } finally {
    progress.stop();
    await lease?.release(finished);
    await store.close();
  }
}

/** Applies the retention rules of hosted repositories. */
async function retain(
  { config, log, stderr }: Host,
  { store, dryRun, signal }: { store: UploadStore; dryRun: boolean; signal: AbortSignal },
): Promise<void> {
  const registries = createRegistries(config.registry, { store, used: () => undefined });
  const deleted = await applyRetentionRules(config.registry, { registries, store, dryRun, log, signal });
  if (deleted.length === 0) return;
  const doing = dryRun ? 'would delete' : 'have deleted';
  stderr.write(`the retention rules ${doing} ${deleted.length} tags and manifests of hosted repositories\n`);
  if (dryRun) for (const name of deleted) stderr.write(`  ${name}\n`);
}

async function waitForLease(store: Store, signal: AbortSignal, onWaiting: (holder: string) => void): Promise<Lease> {
  for (let lastHolder = ''; ; await delay(1000, undefined, { signal })) {
    const turn = await takeLease(store, { signal });
    if ('lease' in turn) return turn.lease;
    if (turn.holder !== lastHolder) onWaiting(turn.holder);
    lastHolder = turn.holder;
  }
}

/** One progress bar after another, for each phase of the work. */
function createBars(start: (name: string) => Bar) {
  let shown: { name: string; bar: Bar } | undefined;
  return {
    show: (name: string, done: number, total: number): void => {
      if (shown?.name !== name) {
        shown?.bar.end();
        shown = { name, bar: start(name) };
      }
      shown.bar.set(done, total);
    },
    end: () => shown?.bar.end(),
  };
}

function plain({ images, ...counts }: PruneResult) {
  return {
    ...counts,
    images: images.map(({ image, names, lastUse, because }) => ({
      digest: image.digest,
      names,
      lastUse: new Date(lastUse).toISOString(),
      because,
    })),
  };
}

function render(result: PruneResult, dryRun: boolean): string {
  const { images, blobs, bytes, records, before, limit, overLimit, spared, kept } = result;
  const cells = images.flatMap(({ names, lastUse, because }) =>
    names.map((name) => [
      name.replace(/@(.{19}).*$/, '@$1'),
      new Date(lastUse).toISOString().slice(0, 10),
      because === 'age' ? 'too old' : 'no room',
    ]),
  );
  const lines = [
    `${dryRun ? 'would remove' : 'removed'} ${images.length} images, ${blobs} blobs of ${formatBytes(bytes)}, ${records} records; ` +
      `${formatBytes(before - bytes)} of ${formatBytes(before)} ${dryRun ? 'would stay' : 'stay'}`,
    ...(kept === 0 ? [] : [`${kept} images must stay: they are pinned, in use, or were pushed here`]),
    ...(spared === 0 ? [] : [`${spared} images were pulled during the run, and stay`]),
    ...(overLimit
      ? [`that is more than the ${formatBytes(limit)} that may be stored: the rest is too young or was used too recently`]
      : []),
  ];
  const table = cells.length === 0 ? '' : `${renderTable(['IMAGE', 'LAST USE', 'WHY'], cells)}\n`;
  return `${table}${lines.join('\n')}\n`;
}
