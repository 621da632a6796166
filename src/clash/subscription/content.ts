import { ClashError, nameOf } from './document.ts';
import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import { parseYaml } from './yaml.ts';

/** What a subscription brought: a Clash document, or a list of node URIs, which mihomo itself reads. */
export type Content = { kind: 'clash'; document: Fields } | { kind: 'uris'; text: string };

const URI = /^(?:ss|ssr|vmess|vless|trojan|hysteria|hysteria2|hy2|tuic|anytls|mierus?|socks|socks5|socks5h|http|https):\/\/\S/;

/** Tells what a subscription's body is: Clash YAML, a list of URIs, or that list in base64.
 *  @throws ClashError: neither, or without any node */
export async function parseContent(bytes: Uint8Array): Promise<Content> {
  const text = new TextDecoder('utf-8').decode(bytes).trim();
  if (text === '') throw new ClashError('it is empty');
  if (/^<(?:!doctype|html|\?xml)/i.test(text))
    throw new ClashError('it is a web page, no list of nodes: is the URL right, and has it expired?');
  const uris = readUris(text);
  if (uris !== undefined) return { kind: 'uris', text: uris };
  const document = await parseYaml(text);
  if (document === undefined) throw new ClashError('it is neither Clash YAML nor a list of node URIs, in base64 or plain');
  const nodes = itemsOf(document['proxies']).filter((node) => nameOf(node) !== '' && typeof node['type'] === 'string');
  if (nodes.length === 0 && Object.keys(fieldsOf(document['proxy-providers'])).length === 0) throw new ClashError('it has no node');
  return { kind: 'clash', document };
}

/** The lines that are node URIs, or undefined when there is none. */
function readUris(text: string): string | undefined {
  for (const candidate of [text, decodeBase64(text)]) {
    const lines = (candidate ?? '').split(/\r?\n/).map((line) => line.trim());
    const uris = lines.filter((line) => URI.test(line));
    if (uris.length > 0 && uris.length >= lines.filter((line) => line !== '' && !line.startsWith('#')).length / 2) return uris.join('\n');
  }
  return undefined;
}

function decodeBase64(text: string): string | undefined {
  const compact = text.replace(/\s+/g, '');
  return /^[A-Za-z0-9+/_-]+={0,2}$/.test(compact) ? Buffer.from(compact, 'base64').toString('utf8') : undefined;
}
