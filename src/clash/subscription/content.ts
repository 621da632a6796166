import { fieldsOf, isFields, itemsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { ClashError, nameOf, omit } from './document.ts';
import { isPseudoNode, readSip008, refuseForeignDocument, refuseForeignText } from './formats.ts';
import { linkName, readLinks, type LinkList } from './links.ts';
import { decodeBase64, decodeText } from './text.ts';
import { parseYaml } from './yaml/parse-yaml.ts';

/** The content of a subscription: a Clash document, or share links, one per line, which mihomo
 *  itself reads. `notes`: what was left out, and information that the provider lists in place of
 *  nodes. */
export type Content = { notes?: readonly string[] } & ({ kind: 'clash'; document: Fields } | { kind: 'uris'; text: string });

/** Reads the body of a subscription: Clash YAML (or JSON), share links, or SIP008 JSON; plain or
 *  in base64, in UTF-8 or UTF-16.
 *  @throws ClashError: it is something else, or has no node */
export async function parseContent(bytes: Uint8Array): Promise<Content> {
  const text = decodeText(bytes);
  if (text === '') throw new ClashError('it is empty');
  refuseForeignText(text);
  const decoded = decodeBase64(text)?.trim();
  for (const candidate of [text, decoded ?? '']) {
    const list = readLinks(candidate);
    if (list !== undefined && list.links.length >= list.unread.length) return contentOfLinks(list);
  }
  if (decoded !== undefined && /^(?:proxies|proxy-providers)\s*:/m.test(decoded)) return parseDocumentContent(decoded);
  const list = readLinks(text);
  return parseDocumentContent(text).catch((error: unknown) => {
    if (list === undefined) throw error;
    return contentOfLinks(list);
  });
}

function contentOfLinks({ links, remarks, unread }: LinkList): Content {
  const notes = remarks.map((remark) => `the provider says: ${remark}`);
  if (unread.length > 0) notes.push(`${unread.length} of its lines are no links: ${listNumbers(unread)}`);
  const nodes = links.filter((link) => !noteIfPseudo(linkName(link), notes));
  if (nodes.length === 0) throw new ClashError(`it has no node; ${notes.join('; ')}`);
  return { kind: 'uris', text: nodes.join('\n'), notes };
}

async function parseDocumentContent(text: string): Promise<Content> {
  const { document: read, repeated } = await parseYaml(text);
  if (read === undefined) throw new ClashError('it is neither Clash YAML nor a list of share links, in base64 or plain');
  refuseForeignDocument(read);
  const document = readSip008(read) ?? read;
  const notes = repeated.length === 0 ? [] : [`duplicate keys in one map, of which the last one is used: lines ${listNumbers(repeated)}`];
  const proxies = itemsOf(document['proxies']).filter((node) => !noteIfPseudo(nameOf(node), notes));
  const named = proxies.some((node) => nameOf(node) !== '' && (textOf(node['type']) ?? '') !== '');
  const providers = Object.values(fieldsOf(document['proxy-providers'])).some(isFields);
  if (!named && !providers) throw new ClashError(notes.length === 0 ? 'it has no node' : `it has no node; ${notes.join('; ')}`);
  return { kind: 'clash', document: { ...omit(document, ['proxies']), proxies }, notes };
}

function noteIfPseudo(name: string, notes: string[]): boolean {
  if (!isPseudoNode(name)) return false;
  notes.push(`the provider says: ${name}`);
  return true;
}

const MAX_NUMBERS = 10;

function listNumbers(numbers: readonly number[]): string {
  const shown = numbers.slice(0, MAX_NUMBERS).join(', ');
  return numbers.length > MAX_NUMBERS ? `${shown} and ${numbers.length - MAX_NUMBERS} more` : shown;
}
