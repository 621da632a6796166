import { isAbsent, isOciError } from '../oci/error.ts';
import { isTag, type Tag } from '../oci/reference.ts';
import type { Context } from '../oci/registry.ts';
import { tagKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';

/** Lists the tags of a repository from upstream, or, if upstream cannot answer, the tags that have
 *  been pulled. A list that breaks off is an error: its beginning would look like a complete
 *  list. */
export async function* listTags(
  { upstream, cache, name: upstreamName, capability }: { upstream: Upstream; cache: Cache; name: string; capability?: string },
  { repository, name }: Target,
  context: Context & { last?: Tag },
): AsyncGenerator<readonly Tag[]> {
  let begun = false;
  try {
    for await (const page of upstream.registry.tags(repository, context)) {
      begun = true;
      yield page;
    }
    cache.metrics.read(upstreamName, 'tags', 'miss');
  } catch (error) {
    const isRevoked = capability !== undefined && isOciError(error, 'UNAUTHORIZED', 'DENIED');
    if (begun || isAbsent(error) || isRevoked || context.signal.aborted) throw error;
    let found = false;
    for await (const page of pulledTags(cache, { repository, name }, context)) {
      found = true;
      yield page;
    }
    if (!found) throw error;
    cache.metrics.read(upstreamName, 'tags', 'stale');
    cache.log.warn({ event: 'tag-list-stale', repository: name, error }, 'upstream cannot list tags: listing those that have been pulled');
  }
}

async function* pulledTags(
  { storage }: Cache,
  { name }: Target,
  { last, signal }: Context & { last?: Tag },
): AsyncGenerator<readonly Tag[]> {
  const prefix = tagKey(name, '' as Tag);
  const options = last === undefined ? { signal } : { signal, after: prefix + last };
  for await (const { key } of storage.records.list(prefix, options)) {
    const tag = key.slice(prefix.length);
    if (isTag(tag)) yield [tag];
  }
}
