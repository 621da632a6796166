import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { decodeBase64 } from './text.ts';

/** A list of share links, one per line. */
export interface LinkList {
  links: string[];
  /** Information in lines that are not links, such as `STATUS=…`. */
  remarks: string[];
  /** Numbers, from 1, of lines that are neither. */
  unread: number[];
}

const LINK = /^[a-z][a-z0-9+.-]*:\/\/\S/i;
/** Lines for v2rayN and others: the provider's information about the account or itself. */
const REMARK = /^(?:STATUS|REMARKS|TRAFFIC|EXPIRE|TOTAL)\s*=\s*\S/i;

/** Parses a text as a list of links. Undefined if no line is a link. */
export function readLinks(text: string): LinkList | undefined {
  const list: LinkList = { links: [], remarks: [], unread: [] };
  for (const [index, untrimmed] of text.split(/\r\n?|\n/).entries()) {
    const line = untrimmed.trim();
    if (LINK.test(line)) list.links.push(line);
    else if (REMARK.test(line)) list.remarks.push(line);
    else if (line !== '' && !line.startsWith('#') && !line.startsWith('//') && !line.startsWith(';')) list.unread.push(index + 1);
  }
  return list.links.length === 0 ? undefined : list;
}

/** The scheme of a link, in lower case. */
function schemeOf(link: string): string {
  return link.slice(0, link.indexOf(':')).toLowerCase();
}

/** The node's name in a link; '' if there is none. */
export function linkName(link: string): string {
  const fragment = link.indexOf('#');
  if (fragment >= 0) return decodeName(link.slice(fragment + 1));
  const scheme = schemeOf(link);
  if (scheme === 'vmess') return textOf(vmessFields(link)['ps']) ?? '';
  if (scheme !== 'ssr') return '';
  const remarks = /[?&]remarks=([^&]*)/.exec(decodedBody(link) ?? '')?.[1];
  return remarks === undefined ? '' : (decodeBase64(remarks) ?? '');
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // a percent sign that encodes nothing
  }
}

/** The text after `scheme://`, decoded from base64; undefined if it is not base64. */
function decodedBody(link: string): string | undefined {
  return decodeBase64(bodyOf(link));
}

function bodyOf(link: string): string {
  return link.slice(link.indexOf('://') + 3).replace(/#.*$/s, '');
}

/** The JSON within a vmess link of v2rayN's form. */
function vmessFields(link: string): Fields {
  try {
    return fieldsOf(JSON.parse(decodedBody(link) ?? ''));
  } catch {
    return {}; // another form of vmess links
  }
}

/** The address of a link's node. Undefined if the link has none. */
export function linkAddress(link: string): { server: string; port: string } | undefined {
  const scheme = schemeOf(link);
  if (scheme === 'vmess') {
    const { add, port } = vmessFields(link);
    if (typeof add === 'string') return { server: add, port: String(port) };
  }
  const body = (scheme === 'ssr' ? decodedBody(link) : bodyOf(repairLink(link) ?? link)) ?? '';
  if (scheme === 'ssr') {
    const [server = '', port = ''] = body.split(':');
    return { server, port };
  }
  const [, server, port] = /^(?:[^/?]*@)?(\[[^\]]*\]|[^:/?@]+):(\d+)/.exec(body) ?? [];
  return server === undefined || port === undefined ? undefined : { server: server.replace(/^\[|\]$/g, ''), port };
}

/** The same link in the form that mihomo reads, for known differences: padded base64, or the other
 *  base64 alphabet. Undefined if there is nothing to repair. */
export function repairLink(link: string): string | undefined {
  const fragment = link.includes('#') ? link.slice(link.indexOf('#')) : '';
  const body = bodyOf(link);
  const scheme = schemeOf(link);
  if (scheme === 'ss' && !body.includes('@')) {
    const [encoded = '', query = ''] = body.split(/\/?(?=\?)/);
    const decoded = decodeBase64(encoded);
    const at = decoded?.lastIndexOf('@') ?? -1;
    if (decoded === undefined || at < 1) return undefined;
    return `ss://${Buffer.from(decoded.slice(0, at)).toString('base64url')}@${decoded.slice(at + 1)}${query}${fragment}`;
  }
  if (scheme === 'vmess' || scheme === 'ssr') {
    const decoded = decodeBase64(body);
    if (decoded === undefined) return undefined;
    const repaired = `${scheme}://${body
      .replaceAll('-', '+')
      .replaceAll('_', '/')
      .replace(/[=\s]+/g, '')}`;
    return repaired === link ? undefined : repaired;
  }
  return undefined;
}
