import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import type { Content } from '../subscription/content.ts';
import { ClashError, nameOf } from '../subscription/document.ts';
import { linkName } from '../subscription/links.ts';
import type { EntryReader } from './entry-reader.ts';

/** A node that was left out. */
interface LeftOut {
  name: string;
  reason: string;
}

/** Leaves out the nodes that mihomo cannot use, also within inline providers, and adds the
 *  reasons to the content's notes.
 *  @throws ClashError: mihomo can use none of the nodes */
export async function vetContent(content: Content, reader: EntryReader): Promise<Content> {
  return content.kind === 'uris' ? vetLinks(content, reader) : vetDocument(content, reader);
}

async function vetLinks(content: Extract<Content, { kind: 'uris' }>, reader: EntryReader): Promise<Content> {
  const links = content.text.split('\n');
  const readings = await reader.readLinks(links);
  const leftOut: LeftOut[] = [];
  const good: string[] = [];
  for (const [index, reading] of readings.entries()) {
    if ('link' in reading) good.push(reading.link);
    else leftOut.push({ name: nameOfLink(links[index] ?? '', index), reason: reading.problem });
  }
  const notes = describe(leftOut);
  if (good.length === 0) throw new ClashError(`mihomo finds no node in it; ${notes.join('; ')}`);
  return { ...content, text: good.join('\n'), notes: [...(content.notes ?? []), ...notes] };
}

function nameOfLink(link: string, index: number): string {
  const scheme = link.split(':', 1)[0] ?? '';
  const name = linkName(link);
  return name === '' ? `${scheme} link ${index + 1}` : `${JSON.stringify(name)} (${scheme})`;
}

async function vetDocument(content: Extract<Content, { kind: 'clash' }>, reader: EntryReader): Promise<Content> {
  const leftOut: LeftOut[] = [];
  const vet = async (nodes: Fields[]): Promise<Fields[]> => {
    const problems = await reader.readNodes(nodes);
    return nodes.filter((node, index) => {
      const reason = problems[index];
      if (reason !== undefined) leftOut.push({ name: JSON.stringify(nameOf(node)), reason });
      return reason === undefined;
    });
  };
  const { document } = content;
  const nodes = itemsOf(document['proxies']);
  const proxies = await vet(nodes);
  const providers = Object.entries(fieldsOf(document['proxy-providers']));
  if (nodes.length > 0 && proxies.length === 0 && providers.length === 0) {
    throw new ClashError(`mihomo understands none of its nodes; ${describe(leftOut).join('; ')}`);
  }
  const vetted: Fields = { ...document, proxies };
  if (providers.length > 0) {
    const entries = await Promise.all(providers.map(async ([name, value]) => [name, await vetProvider(value, vet)] as const));
    vetted['proxy-providers'] = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  }
  return { ...content, document: vetted, notes: [...(content.notes ?? []), ...describe(leftOut)] };
}

/** @returns undefined for an inline provider without a node that mihomo can use */
async function vetProvider(value: unknown, vet: (nodes: Fields[]) => Promise<Fields[]>): Promise<unknown> {
  const provider = fieldsOf(value);
  if (provider['payload'] === undefined) return value;
  const payload = await vet(itemsOf(provider['payload']));
  if (payload.length > 0) return { ...provider, payload };
  return provider['type'] === 'inline' ? undefined : Object.fromEntries(Object.entries(provider).filter(([key]) => key !== 'payload'));
}

const MAX_NAMES = 5;
const MAX_NOTES = 8;

/** Writes one note for each reason, and a last one for all reasons beyond `MAX_NOTES`. */
function describe(leftOut: readonly LeftOut[]): string[] {
  const groups = [...Map.groupBy(leftOut, ({ reason }) => shorten(reason))].sort(([, one], [, other]) => other.length - one.length);
  const rest = groups.slice(MAX_NOTES).flatMap(([, entries]) => entries);
  const notes = groups.slice(0, MAX_NOTES).map(([reason, entries]) => `${listNodes(entries)}: ${reason}`);
  if (rest.length > 0) notes.push(`${listNodes(rest)}: each for a reason of its own, such as ${shorten(rest[0]?.reason ?? '')}`);
  return notes.map((text) => `left out, since mihomo does not understand it: ${text}`);
}

function listNodes(entries: readonly LeftOut[]): string {
  const names = entries.slice(0, MAX_NAMES).map(({ name }) => name);
  if (entries.length > MAX_NAMES) names.push(`${entries.length - MAX_NAMES} more`);
  return `${entries.length === 1 ? 'node' : `${entries.length} nodes`} ${names.join(', ')}`;
}

/** Removes the node's type and address, with which mihomo's reasons start. */
function shorten(reason: string): string {
  return reason.replace(/^\S+ \S+:\d+ /, '').slice(0, 200);
}
