import { formatBytes, renderTable } from '../table.ts';
import { takeInventory, type Inventory } from '../../upkeep/inventory.ts';
import { readLease } from '../../upkeep/lease.ts';
import { readWarmResult, type WarmResult } from '../../upkeep/warm-schedule.ts';
import { countReferences } from '../../upkeep/plan.ts';
import { upstreamNameOf } from '../../oci/capability.ts';
import type { Host } from '../command.ts';
import { createProgress } from './progress.ts';
import { pruneLimits } from '../wiring/prune-limits.ts';
import { openStore } from '../wiring/storage.ts';

interface Totals {
  blobs: number;
  bytes: number;
  /** Blobs that no image names; they are removed when they are a day old. */
  unnamed: { blobs: number; bytes: number };
  images: number;
  tags: number;
  /** Bytes that the images of an upstream need; shared bytes count for each upstream. */
  upstreams: Record<string, { images: number; bytes: number }>;
  /** The size limit in bytes; 0: no limit. */
  limit: number;
  /** Milliseconds; 0: no limit. */
  maxAge: number;
  /** The last use of the least recently used image. */
  oldestUse: string | null;
  /** When pruning last finished, and on which replica. */
  pruned: { at: string; by: string } | null;
  /** The result of the last run of registry.warm. */
  warmed: WarmResult | null;
}

/** `kube-registry cache stat`: shows how much is stored. @throws OciError UNAVAILABLE */
export async function cacheStat({ config, stop, stdout, stderr }: Host, { json }: { json: boolean }): Promise<number> {
  const store = await openStore(config.registry);
  const progress = createProgress(stderr);
  const bar = progress.start('reading manifests');
  try {
    const inventory = await takeInventory(store, { signal: stop, progress: bar.set });
    const { maxSize, maxAge } = await pruneLimits(config.registry)(inventory.blobs.bytes());
    const state = await readLease(store, { signal: stop });
    const warmed = await readWarmResult(store, { signal: stop });
    bar.end();
    const totals: Totals = {
      ...count(inventory),
      limit: maxSize,
      maxAge,
      pruned: state === undefined || state.finishedAt === '' ? null : { at: state.finishedAt, by: state.owner },
      warmed: warmed ?? null,
    };
    stdout.write(json ? `${JSON.stringify(totals, undefined, 2)}\n` : render(totals));
    return 0;
  } finally {
    progress.stop();
    await store.close();
  }
}

function count({ blobs, images, tags }: Inventory): Omit<Totals, 'limit' | 'maxAge' | 'pruned' | 'warmed'> {
  const references = countReferences(blobs, images);
  const unnamed = { blobs: 0, bytes: 0 };
  for (let blob = 0; blob < blobs.count(); blob++) {
    if (references[blob] !== 0) continue;
    unnamed.blobs++;
    unnamed.bytes += blobs.size(blob);
  }
  const days = images.flatMap(({ places }) => places.map(({ lastDay }) => lastDay)).filter((day) => day !== '');
  const names = [...new Set(images.flatMap(({ places }) => places.map(({ repository }) => upstreamNameOf(repository))))].sort();
  return {
    blobs: blobs.count(),
    bytes: blobs.bytes(),
    unnamed,
    images: images.length,
    tags,
    upstreams: Object.fromEntries(
      names.map((name) => {
        const own = images.filter(({ places }) => places.some(({ repository }) => upstreamNameOf(repository) === name));
        const needed = countReferences(blobs, own);
        let bytes = 0;
        for (let blob = 0; blob < blobs.count(); blob++) if (needed[blob] !== 0) bytes += blobs.size(blob);
        return [name, { images: own.length, bytes }];
      }),
    ),
    oldestUse: days.sort()[0] ?? null,
  };
}

function describeWarming({ finishedAt, warm, failed, skipped, bytes }: WarmResult): string {
  const exceptions = `${failed === 0 ? '' : `, ${failed} failed`}${skipped === 0 ? '' : `, ${skipped} are not of this registry`}`;
  return `${finishedAt}: ${warm} images are warm${exceptions}, ${formatBytes(bytes)} were read`;
}

function render({ blobs, bytes, unnamed, images, tags, upstreams, limit, maxAge, oldestUse, pruned, warmed }: Totals): string {
  const facts = [
    ['stored', `${formatBytes(bytes)} in ${blobs} blobs`],
    ['limit', limit === 0 ? 'none' : `${formatBytes(limit)}, ${Math.round((100 * bytes) / limit)} % of it used`],
    ['max age', maxAge === 0 ? 'none' : `${Math.round((maxAge / 86_400_000) * 10) / 10} days without a pull`],
    ['images', `${images} manifests and indexes, ${tags} tags`],
    ['unnamed', `${formatBytes(unnamed.bytes)} in ${unnamed.blobs} blobs that no image names`],
    ['oldest use', oldestUse ?? 'none is recorded'],
    ['pruned', pruned === null ? 'never' : `${pruned.at} by ${pruned.by}`],
    ['warmed', warmed === null ? 'never by a schedule' : describeWarming(warmed)],
  ];
  const heading = facts.map(([name = '', value = '']) => `${name.padEnd(12)}${value}\n`).join('');
  const cells = Object.entries(upstreams).map(([name, own]) => [name, String(own.images), formatBytes(own.bytes)]);
  return cells.length === 0 ? heading : `${heading}\n${renderTable(['UPSTREAM', 'IMAGES', 'SIZE'], cells)}`;
}
