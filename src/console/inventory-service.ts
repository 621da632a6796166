import type { Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { Overview } from './api/overview.ts';
import { listStoredImages, type StoredImages } from './inventory.ts';

export interface InventoryService {
  /** Call it when the images are viewed: if the last list is old, they are listed again in the
   *  background. */
  look(this: void): void;
  /** Call it when the images have changed: they are listed again soon. */
  changed(this: void): void;
  state(this: void): Overview['inventory'];
  /** The last list; undefined: there is none yet. */
  current(this: void): StoredImages | undefined;
  /** Called with each new list, to prepare derived data before a request needs it. */
  onListed(this: void, listener: (images: StoredImages) => void): void;
}

export interface InventoryServiceOptions {
  store: Store;
  /** Time between the end of a listing and the start of the next one, in ms. */
  intervalMs: number;
  log: Log;
  stop: AbortSignal;
}

/** A list that has not been viewed for this long is dropped, in ms. */
const FORGOTTEN_AFTER_MS = 3_600_000;
/** How soon changed images are listed again, in ms. */
const SOON_MS = 2000;

/** Lists the stored images in the background while the console is open. While it is closed, nothing
 *  is listed. */
export function createInventoryService({ store, intervalMs, log, stop }: InventoryServiceOptions): InventoryService {
  let images: StoredImages | undefined;
  let takenAt = 0;
  let seconds: number | null = null;
  let share = 0;
  let problem: string | null = null;
  let running: Promise<void> | undefined;
  let isOutdated = false;
  let forgetting: NodeJS.Timeout | undefined;
  let listed: (images: StoredImages) => void = () => undefined;

  async function take(): Promise<void> {
    const started = performance.now();
    isOutdated = false;
    share = 0;
    try {
      images = await listStoredImages(store, { before: images, signal: stop, progress: (now) => (share = now) });
      problem = null;
      listed(images);
    } catch (error) {
      if (stop.aborted) return;
      problem = error instanceof Error ? error.message : String(error);
      log.warn({ event: 'images-not-listed', error }, 'cannot list the stored images for the console; showing the previous list');
    }
    takenAt = Date.now();
    seconds = Math.round((performance.now() - started) / 10) / 100;
  }

  function begin(): void {
    running ??= take().finally(() => (running = undefined));
  }

  function keepForNow(): void {
    clearTimeout(forgetting);
    forgetting = setTimeout(() => {
      images = undefined;
      takenAt = 0;
    }, FORGOTTEN_AFTER_MS).unref();
  }

  return {
    look() {
      keepForNow();
      if (isOutdated || Date.now() - takenAt >= intervalMs) begin();
    },
    changed() {
      isOutdated = true;
      setTimeout(() => isOutdated && images !== undefined && begin(), SOON_MS).unref();
    },
    state: () => ({
      state: running === undefined ? (problem === null ? (images === undefined ? 'none' : 'ready') : 'failed') : 'running',
      takenAt: images === undefined || takenAt === 0 ? null : new Date(takenAt).toISOString(),
      seconds,
      progress: running === undefined ? null : share,
      images: images?.images.length ?? null,
      problem,
    }),
    current: () => images,
    onListed(listener) {
      listed = listener;
    },
  };
}
