import { setTimeout as delay } from 'node:timers/promises';
import { isFields, type Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import { repairLink } from '../subscription/links.ts';
import { removeThrowaways, startThrowaway, type Throwaway, type ThrowawayOptions } from './throwaway.ts';

/** Uses mihomo to read the entries of subscriptions, in a separate process that runs for one call.
 *  An entry that mihomo cannot use, or that crashes it, therefore harms no traffic. Verdicts are
 *  cached. One call runs at a time. */
export interface EntryReader {
  /** @returns for each node the reason why mihomo cannot use it; undefined: mihomo can
   *  @throws Error: mihomo does not start, or does not answer, which says nothing about the
   *  nodes */
  readNodes(nodes: readonly Fields[]): Promise<(string | undefined)[]>;
  /** @returns for each link the form that mihomo reads, or the reason why there is none
   *  @throws Error: as above */
  readLinks(links: readonly string[]): Promise<LinkReading[]>;
}

export type ReaderOptions = Omit<ThrowawayOptions, 'started'>;
export type LinkReading = { link: string } | { problem: string };

/** Entries in one file; while all are good, twice as many in the next one. */
const BATCH_SIZE = 250;
const MAX_BATCH_SIZE = 2000;
const MAX_REMEMBERED = 20_000;
const NO_NODE = 'mihomo does not support such links';
const CRASH = 'mihomo crashes when it reads this';
/** Links that may each stand for several nodes, so counting nodes does not show whether one was
 *  skipped. */
const SEVERAL_NODES = /^mierus?:/i;
/** The reader's config: no port, no name server, no download, and one provider whose file is
 *  rewritten for each batch. */
const READER: Fields = {
  'log-level': 'error',
  dns: { enable: false },
  profile: { 'store-selected': false, 'store-fake-ip': false },
  'geo-auto-update': false,
  'geox-url': Object.fromEntries(['geo-ip', 'geoip', 'geo-site', 'geosite', 'mmdb', 'asn'].map((key) => [key, 'http://127.0.0.1:9/'])),
  'proxy-providers': { p: { type: 'file', path: 'entries' } },
  rules: ['MATCH,REJECT'],
};

export function createEntryReader(options: ReaderOptions): EntryReader {
  const remembered = new Map<string, string>();
  let last: Promise<unknown> = removeThrowaways(options.directory);

  async function inTurn<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const mine = last.then(async () => {
      const session = createSession(options);
      try {
        return await work(session);
      } finally {
        await session.end();
      }
    });
    last = mine.catch(() => undefined); // reported to the caller, by `mine`
    return mine;
  }

  /** Returns cached verdicts, and reads the other entries. A verdict is the reason for a refusal;
   *  '' means that the entry is good. */
  async function withMemory<T>(
    entries: readonly T[],
    keyOf: (entry: T) => string,
    read: (session: Session, unknown: readonly T[]) => Promise<string[]>,
  ): Promise<string[]> {
    const keys = entries.map(keyOf);
    const unknown = new Map(
      entries.flatMap((entry, index) => (remembered.has(keys[index] ?? '') ? [] : [[keys[index] ?? '', entry] as const])),
    );
    const verdicts = new Map(keys.map((key) => [key, remembered.get(key) ?? '']));
    if (unknown.size > 0) {
      const found = await inTurn((session) => read(session, [...unknown.values()]));
      for (const [index, key] of [...unknown.keys()].entries()) {
        verdicts.set(key, found[index] ?? '');
        remembered.set(key, found[index] ?? '');
      }
      for (const key of remembered.keys()) {
        if (remembered.size <= MAX_REMEMBERED) break;
        remembered.delete(key);
      }
    }
    return keys.map((key) => verdicts.get(key) ?? '');
  }

  return {
    async readNodes(nodes) {
      const verdicts = await withMemory(nodes, (node) => fingerprint('node', JSON.stringify(node)), readNodes);
      return verdicts.map((verdict) => (verdict === '' ? undefined : verdict));
    },

    async readLinks(links) {
      const verdicts = await withMemory(links, (link) => fingerprint('link', link), readLinks);
      return links.map((link, index) => {
        const verdict = verdicts[index] ?? '';
        if (verdict === REPAIRED) return { link: repairLink(link) ?? link };
        return verdict === '' ? { link } : { problem: verdict };
      });
    },
  };
}

/** The verdict on a link that mihomo reads after `repairLink`. */
const REPAIRED = '\0repaired';

interface Session {
  /** Lets mihomo read a file of nodes.
   *  @throws Error: it does not answer */
  read(content: string): Promise<{ problem?: string }>;
  /** The same, with the number of nodes that mihomo finds. It takes as long again. */
  count(content: string): Promise<{ problem?: string; count: number }>;
  end(): Promise<void>;
}

/** Starts mihomo at the first read, and again after a file has crashed it. */
function createSession(options: ReaderOptions): Session {
  let mihomo: Throwaway | undefined;
  let reads = 0;

  async function running(): Promise<Throwaway> {
    if (mihomo?.running() === true) return mihomo;
    await mihomo?.[Symbol.asyncDispose]();
    return (mihomo = await startThrowaway(READER, { ...options, started: NOT_THERE_YET }));
  }

  async function read(content: string, find: (mihomo: Throwaway) => Promise<number>): Promise<{ problem?: string; count: number }> {
    const current = await running();
    // mihomo skips a file whose content has not changed.
    await current.write('entries', `${content}\n# ${++reads}`);
    try {
      const { status, text } = await reload(current);
      if (status >= 300) return { problem: messageOf(text), count: 0 };
      return { count: await find(current) };
    } catch (cause) {
      const crashed = await current.crashed();
      await current[Symbol.asyncDispose]();
      if (!crashed) throw new Error('the mihomo that reads entries does not answer', { cause });
      return { problem: CRASH, count: 0 };
    }
  }

  return {
    read: (content) => read(content, () => Promise.resolve(0)),
    count: (content) => read(content, countNodes),
    end: async () => mihomo?.[Symbol.asyncDispose](),
  };
}

/** The provider's path at mihomo's controller. */
const PROVIDER = '/providers/proxies/p';
const READY_LIMIT_MS = 10_000;
const READY_PAUSE_MS = 50;

/** Lets mihomo read the provider's file. The controller answers 404 until the config is in use.
 *  @throws Error: mihomo has ended, or still answers 404 after 10 s */
async function reload(mihomo: Throwaway): Promise<{ status: number; text: string }> {
  const limit = performance.now() + READY_LIMIT_MS;
  for (;;) {
    const answer = await mihomo.call('PUT', PROVIDER);
    if (answer.status !== 404) return answer;
    if (performance.now() > limit) throw new Error(`mihomo's controller does not know the provider: ${answer.text}`);
    await delay(READY_PAUSE_MS);
  }
}

async function countNodes(mihomo: Throwaway): Promise<number> {
  const { text } = await mihomo.call('GET', PROVIDER);
  return ((JSON.parse(text) as { proxies?: unknown[] }).proxies ?? []).length;
}

/** The last line of the start: the provider's file does not exist yet. */
const NOT_THERE_YET = /initial \w+ provider p error/;

function messageOf(text: string): string {
  try {
    const answer: unknown = JSON.parse(text);
    return isFields(answer) ? String(answer['message']) : text;
  } catch {
    return text;
  }
}

/** Returns a verdict for each node. mihomo stops at the first bad node and names its index, so
 *  the nodes before it are good. */
async function readNodes(session: Session, nodes: readonly Fields[]): Promise<string[]> {
  const verdicts = nodes.map(() => '');
  const unknownTypes = new Map<unknown, string>();
  let size = BATCH_SIZE;
  for (let pending = [...nodes.keys()]; pending.length > 0;) {
    const batch = pending.slice(0, size);
    const { problem } = await session.read(encodeConfig({ proxies: batch.map((index) => ({ ...nodes[index], name: `n${index}` })) }));
    const [, position, reason = ''] = /^proxy (\d+) error: (.*)$/s.exec(problem ?? '') ?? [];
    const at = position === undefined ? undefined : batch[Number(position)];
    if (problem === undefined) {
      pending = pending.slice(batch.length);
      size = Math.max(BATCH_SIZE, Math.min(2 * size, MAX_BATCH_SIZE));
    } else if (at !== undefined) {
      verdicts[at] = reason;
      size = BATCH_SIZE;
      if (/^unsupport\w* proxy type/.test(reason)) unknownTypes.set(nodes[at]?.['type'], reason);
      pending = pending.slice(Number(position) + 1);
    } else if (batch.length === 1) {
      verdicts[batch[0] ?? 0] = problem;
      pending = pending.slice(1);
      size = BATCH_SIZE;
    } else {
      size = Math.ceil(batch.length / 2);
    }
    for (const index of pending) verdicts[index] = unknownTypes.get(nodes[index]?.['type']) ?? '';
    pending = pending.filter((index) => verdicts[index] === '');
  }
  return verdicts;
}

/** Returns a verdict for each link. mihomo skips unknown links silently. If it finds fewer nodes
 *  than a batch has links, the batch is split in halves until the skipped links are known. */
async function readLinks(session: Session, links: readonly string[]): Promise<string[]> {
  const verdicts = links.map(() => '');

  async function read(batch: readonly number[]): Promise<void> {
    if (batch.length === 0) return;
    const { problem, count } = await session.count(batch.map((index) => links[index]).join('\n'));
    const unread = problem?.includes('convert v2ray subscribe error') === true;
    if (batch.length === 1) {
      verdicts[batch[0] ?? 0] = await judge(
        links[batch[0] ?? 0] ?? '',
        problem === undefined && count > 0 ? undefined : unread ? NO_NODE : problem,
      );
    } else if (unread) {
      for (const index of batch) verdicts[index] = await judge(links[index] ?? '', NO_NODE);
    } else if (problem !== undefined || count < batch.length) {
      const half = Math.ceil(batch.length / 2);
      await read(batch.slice(0, half));
      await read(batch.slice(half));
    }
  }

  async function judge(link: string, problem: string | undefined): Promise<string> {
    if (problem === undefined) return '';
    const repaired = repairLink(link);
    if (repaired !== undefined) {
      const second = await session.count(repaired);
      if (second.problem === undefined && second.count > 0) return REPAIRED;
    }
    return problem.replace(/^proxy \d+ error: /, '');
  }

  const byScheme = Map.groupBy(links.keys(), (index) => (links[index] ?? '').split(':', 1)[0]?.toLowerCase());
  for (const indices of byScheme.values()) {
    const several = SEVERAL_NODES.test(links[indices[0] ?? 0] ?? '');
    for (let start = 0; start < indices.length;) {
      const batch = indices.slice(start, start + (several ? 1 : BATCH_SIZE));
      await read(batch);
      start += batch.length;
    }
  }
  return verdicts;
}
