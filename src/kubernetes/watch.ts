import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import { isOciError } from '../oci/error.ts';
import type { Kubernetes } from './client.ts';

/** A change to the objects of a collection. */
export type Change =
  /** The object is new, or it may have changed. */
  | { type: 'set'; key: string; object: Fields }
  /** The object was removed. */
  | { type: 'removed'; key: string }
  /** All objects of the collection have been reported, and all removed ones too. */
  | { type: 'complete' }
  /** After a failure, the API server answers again; the objects may be unchanged. */
  | { type: 'recovered' }
  /** The API server does not answer, or RBAC forbids it (`isDenied`); the request is repeated after
   *  a pause. */
  | { type: 'failed'; error: Error; isDenied: boolean };

export interface Collection {
  /** `/api/v1/namespaces/default/secrets` */
  path: string;
  /** `type=kubernetes.io/dockerconfigjson`; empty for all objects. */
  fieldSelector: string;
}

/** Objects in one page of a list. A Secret has up to 1.5 MB of JSON, so a page stays below 40
 *  MB. */
const PAGE_SIZE = 25;
/** The API server ends a watch after this time, up to twice as long: watches of many processes,
 *  begun together, spread. */
const WATCH_SECONDS = 240;
/** The longest event, in characters: an object of 1.5 MB, with what escaping adds. */
const MAX_EVENT_LENGTH = 8 * 2 ** 20;
const BACKOFF = { baseMs: 500, capMs: 30_000, jitter: 'half' } as const;
/** A watch that ends sooner counts as a failure, so that a server that ends every watch at once is
 *  not asked in a loop. */
const SHORT_WATCH_MS = 1_000;

/** Follows a collection until `signal` aborts: lists it, then watches it from there, and lists it
 *  again only if the API server has forgotten that version (410). A watch that breaks continues
 *  where it was. Keeps the keys of the objects in memory, not the objects.
 *  https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes */
export async function* watchObjects(kubernetes: Kubernetes, collection: Collection, signal: AbortSignal): AsyncGenerator<Change> {
  const known = new Set<string>();
  let version: string | undefined;
  let failures = 0;
  let isFailing = false;
  while (!signal.aborted) {
    const started = performance.now();
    let hasFailed = false;
    try {
      if (version === undefined) {
        version = yield* list(kubernetes, { collection, known, signal });
        isFailing = false;
      }
      for await (const event of eventsOf(kubernetes, { collection, version, signal })) {
        version = event === 'expired' ? undefined : event.version;
        if (event === 'expired') break;
        if (isFailing) yield { type: 'recovered' };
        isFailing = false;
        if (event.change === undefined) continue;
        if (event.change.type === 'removed') known.delete(event.change.key);
        else known.add(event.change.key);
        yield event.change;
      }
    } catch (error) {
      if (signal.aborted) return;
      // Connections break now and then: a new watch continues at once. Only if that fails too is it
      // a failure.
      hasFailed = isOciError(error);
      const isDenied = isOciError(error, 'DENIED');
      // Without permission, the objects must be forgotten, and all listed again once it is granted.
      if (isDenied) version = undefined;
      isFailing ||= hasFailed;
      if (hasFailed) yield { type: 'failed', error: error as Error, isDenied };
    }
    failures = !hasFailed && performance.now() - started > SHORT_WATCH_MS ? 0 : failures + 1;
    const pause = failures === 0 ? 0 : backoff(Math.min(failures - 1, 10), BACKOFF);
    await delay(pause, undefined, { signal, ref: false }).catch(() => undefined); // aborted: the loop ends
  }
}

interface Listing {
  collection: Collection;
  /** After the call: the keys of the listed objects. */
  known: Set<string>;
  signal: AbortSignal;
}

/** @returns the version from which to watch */
async function* list(kubernetes: Kubernetes, { collection, known, signal }: Listing): AsyncGenerator<Change, string> {
  const left = new Set(known);
  let next = '';
  let version = '';
  do {
    const query = { limit: String(PAGE_SIZE), ...(next === '' ? {} : { continue: next }) };
    const page = fieldsOf(await kubernetes.get(pathOf(collection, query), signal));
    const metadata = fieldsOf(page['metadata']);
    for (const object of itemsOf(page['items'])) {
      const key = keyOf(object);
      left.delete(key);
      known.add(key);
      yield { type: 'set', key, object };
    }
    next = textOf(metadata['continue']) ?? '';
    version = textOf(metadata['resourceVersion']) ?? '';
  } while (next !== '');
  for (const key of left) {
    known.delete(key);
    yield { type: 'removed', key };
  }
  yield { type: 'complete' };
  return version;
}

interface WatchEvent {
  /** The version from which a broken watch continues. */
  version: string;
  change?: Change & { type: 'set' | 'removed' };
}

interface Watching {
  collection: Collection;
  version: string;
  signal: AbortSignal;
}

/** The events of one watch; the first, without a change, says that the watch has begun. `expired`:
 *  the collection must be listed again.
 *  @throws OciError DENIED, UNAVAILABLE; Error: the connection broke */
async function* eventsOf(kubernetes: Kubernetes, { collection, version, signal }: Watching): AsyncGenerator<WatchEvent | 'expired'> {
  const timeoutSeconds = String(Math.round(WATCH_SECONDS * (1 + Math.random())));
  const query = { watch: '1', allowWatchBookmarks: 'true', resourceVersion: version, timeoutSeconds };
  const body = await kubernetes.stream(pathOf(collection, query), signal);
  if (body === undefined) {
    yield 'expired';
    return;
  }
  yield { version };
  for await (const line of linesOf(body)) {
    const event = line === undefined ? {} : fieldsOf(JSON.parse(line));
    const object = fieldsOf(event['object']);
    // An ERROR holds a Status: 410, or a failure after which only a new list is certain to be
    // complete.
    if (line === undefined || event['type'] === 'ERROR') {
      yield 'expired';
      return;
    }
    const seen = textOf(fieldsOf(object['metadata'])['resourceVersion']) ?? version;
    if (event['type'] === 'BOOKMARK') yield { version: seen };
    else if (event['type'] === 'DELETED') yield { version: seen, change: { type: 'removed', key: keyOf(object) } };
    else yield { version: seen, change: { type: 'set', key: keyOf(object), object } };
  }
}

/** The lines of a body, without empty ones; undefined, and no more, after one that is longer than
 *  MAX_EVENT_LENGTH. */
async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string | undefined> {
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  let length = 0;
  for await (const chunk of body) {
    const [first = '', ...others] = decoder.decode(chunk, { stream: true }).split('\n');
    pieces.push(first);
    length += first.length;
    if (length > MAX_EVENT_LENGTH) {
      yield undefined;
      return;
    }
    for (const other of others) {
      const line = pieces.join('');
      if (line !== '') yield line;
      pieces = [other];
      length = other.length;
    }
  }
}

function pathOf({ path, fieldSelector }: Collection, query: Record<string, string>): string {
  return `${path}?${new URLSearchParams({ ...(fieldSelector === '' ? {} : { fieldSelector }), ...query }).toString()}`;
}

function keyOf(object: Fields): string {
  const { namespace, name } = fieldsOf(object['metadata']);
  return `${textOf(namespace) ?? ''}/${textOf(name) ?? ''}`;
}
