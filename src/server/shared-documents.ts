import { setImmediate as turn } from 'node:timers/promises';
import { createSemaphore } from '../async/semaphore.ts';
import { singleFlight } from '../async/single-flight.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import type { Context, Referrers, Registry } from '../oci/registry.ts';
import type { TagsPage } from './parse-request.ts';

export interface TagList {
  /** The body of the answer. */
  bytes: Buffer;
  /** The last tag of the page, if there are more. */
  next: Tag | undefined;
}

/** Documents that are built for a response and may be large: a tag list may have 32 MiB. */
export interface SharedDocuments {
  /** @throws OciError as `Registry.tags` does */
  tagList(repository: Repository, asked: { repository: Repository; page: TagsPage }, context: Context): Promise<TagList>;
  /** @throws OciError as `Registry.referrers` does */
  referrers(repository: Repository, digest: Digest, context: Context & { artifactType?: string }): Promise<Referrers>;
}

/** The time limit for building a document, in ms: a list may have a thousand pages. */
const TIMEOUT_MS = 120_000;
/** How many tag lists are built at the same time. Each takes several times its size in memory while
 *  it is read. */
const MAX_TAG_LISTS = 4;
const MAX_WAITING = 1024;
/** Tags written as JSON before other requests get a turn: about 2 ms. */
const TAGS_PER_TURN = 20_000;

/** Clients that request the same document at the same time share one call and one buffer. */
export function sharedDocuments(registry: Registry): SharedDocuments {
  const lists = singleFlight<TagList>({ timeoutMs: TIMEOUT_MS, lingerMs: 0 });
  const indexes = singleFlight<Referrers>({ timeoutMs: TIMEOUT_MS, lingerMs: 0 });
  const places = createSemaphore(MAX_TAG_LISTS, { maxWaiting: MAX_WAITING });

  return {
    tagList(repository, { repository: name, page }, context) {
      const key = JSON.stringify([repository, name, page.n, page.last]);
      return lists(key, context.signal, (signal) =>
        places.run(() => readTagList(registry, { repository, name, page }, { ...context, signal }), signal),
      );
    },
    referrers(repository, digest, context) {
      const key = JSON.stringify([repository, digest, context.artifactType]);
      return indexes(key, context.signal, (signal) => registry.referrers(repository, digest, { ...context, signal }));
    },
  };
}

async function readTagList(
  registry: Registry,
  { repository, name, page: { n, last } }: { repository: Repository; name: Repository; page: TagsPage },
  context: Context,
): Promise<TagList> {
  const chunks: Buffer[] = [Buffer.from(`{"name":${JSON.stringify(name)},"tags":[`)];
  let count = 0;
  let nextTurn = TAGS_PER_TURN;
  let end: Tag | undefined;
  let hasMore = false;
  for await (const tags of registry.tags(repository, last === undefined ? context : { ...context, last })) {
    const wanted = n === undefined ? tags : tags.slice(0, n - count);
    hasMore = wanted.length < tags.length;
    for (let start = 0; start < wanted.length; start += TAGS_PER_TURN) {
      const text = JSON.stringify(wanted.slice(start, start + TAGS_PER_TURN)).slice(1, -1);
      chunks.push(Buffer.from(count === 0 ? text : `,${text}`));
      count += Math.min(TAGS_PER_TURN, wanted.length - start);
      if (count < nextTurn) continue;
      nextTurn = count + TAGS_PER_TURN;
      await turn();
    }
    end = wanted.at(-1) ?? end;
    if (hasMore) break;
  }
  chunks.push(Buffer.from(']}'));
  return { bytes: Buffer.concat(chunks), next: hasMore ? end : undefined };
}
