import { itemsOf, textsOf } from '../io/untrusted.ts';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { encodeConfig } from './config/encode.ts';
import { createOwnListener, withoutOwnListeners } from './config/own-listener.ts';
import { firstLookup } from './config/routing.ts';
import type { EntryReader } from './mihomo/entry-reader.ts';
import { vetContent } from './mihomo/vet.ts';
import { parseContent, type Content } from './subscription/content.ts';
import { ClashError } from './subscription/document.ts';
import type { Download } from './subscription/download.ts';
import { nameServersAnswer } from './subscription/name-servers.ts';

export interface FetchContentOptions {
  /** Fetches the body with this User-Agent. @throws ClashError */
  download(this: void, userAgent: string): Promise<Download>;
  /** The configured User-Agent; undefined: mihomo's own. */
  userAgent: string | undefined;
  /** mihomo's version. */
  version: string;
  reader: EntryReader;
  own: ClashConfig;
  /** Where the content comes from: `{ subscription: 'air' }`. */
  source: Record<string, string>;
  log: Log;
}

/** Providers choose the format of a subscription by the User-Agent. The first is mihomo's own. */
function userAgents(version: string): string[] {
  return [`clash.meta/v${version}`, 'clash-verge/v2.4.2', `mihomo/${version}`, 'ClashforWindows/0.20.39', 'v2rayN/7.14.4'];
}

/** Fetches a subscription and reads it. When the answer has no node, other User-Agents are tried.
 *  @returns only nodes that mihomo can use
 *  @throws ClashError: it cannot be fetched, or no answer has a node; the reason is that of the
 *  first answer */
export async function fetchContent({
  download,
  userAgent,
  version,
  reader,
  own,
  source,
  log,
}: FetchContentOptions): Promise<{ content: Content; headers: Download['headers'] }> {
  const [preferred = '', ...others] = new Set([...(userAgent === undefined ? [] : [userAgent]), ...userAgents(version)]);
  const first = await download(preferred);
  try {
    return { content: await withLookupNote(await readContent(first.bytes, reader), own), headers: first.headers };
  } catch (problem) {
    if (!(problem instanceof ClashError)) throw problem;
    log.info(
      { event: 'clash-user-agent-tried', ...source, userAgent: preferred, nodes: 0 },
      'the response has no proxy node; trying other User-Agents',
    );
    for (const other of others) {
      const answer = await download(other).catch(() => undefined);
      const content = answer === undefined ? undefined : await readContent(answer.bytes, reader).catch(() => undefined);
      const nodes = content === undefined ? 0 : countNodes(content);
      log.info({ event: 'clash-user-agent-tried', ...source, userAgent: other, nodes }, 'tried another User-Agent');
      if (answer !== undefined && content !== undefined) return { content: await withLookupNote(content, own), headers: answer.headers };
    }
    throw problem;
  }
}

async function readContent(bytes: Uint8Array, reader: EntryReader): Promise<Content> {
  return vetContent(await parseContent(bytes), reader);
}

/** Reports rules that need name servers if none answers: each connection waits for them. */
async function withLookupNote(content: Content, { mode, healthCheck }: ClashConfig): Promise<Content> {
  if (mode !== 'full' || content.kind === 'uris') return content;
  const rule = firstLookup(textsOf(content.document['rules']));
  if (rule === undefined || (await nameServersAnswer(new URL(healthCheck.url).hostname))) return content;
  const note = `its rules look up addresses (${rule.slice(0, 100)}), and no name server answers here: connections wait some 5 s; add no-resolve to such rules`;
  return { ...content, notes: [...(content.notes ?? []), note] };
}

function countNodes(content: Content): number {
  return content.kind === 'uris' ? content.text.split('\n').length : itemsOf(content.document['proxies']).length;
}

/** Reads the file of a proxy-provider, which may have any subscription format, and writes it again
 *  without the nodes that mihomo cannot use.
 *  @returns the file, and what was left out
 *  @throws ClashError: it has no node that mihomo can use */
export async function rewriteProvider(
  bytes: Uint8Array,
  { reader, own }: { reader: EntryReader; own: ClashConfig },
): Promise<{ file: string; notes: readonly string[] }> {
  const read = await readContent(bytes, reader);
  const notes = [...(read.notes ?? [])];
  const content = withoutOwnListeners(read, { isOwn: createOwnListener(own), note: (message) => notes.push(message) });
  if (content.kind === 'uris') return { file: content.text, notes };
  const proxies = itemsOf(content.document['proxies']);
  if (proxies.length === 0) throw new ClashError('it has no node');
  return { file: encodeConfig({ proxies }), notes };
}
