import { fieldsOf, itemsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { ClashError, namesOf } from './document.ts';

const ASK_FOR_CLASH = "ask for the Clash form: often by flag=clash in the URL, or by the subscription's userAgent";

/** @throws ClashError: the text is a web page, or the config of a program that mihomo does not
 *  read */
export function refuseForeignText(text: string): void {
  if (/^(?:<!doctype|<html|<head|<body|<\?xml|<!--)/i.test(text)) {
    throw new ClashError('it is a web page, not a list of nodes: check the URL, and whether it has expired');
  }
  const program = /^\[(?:General|Proxy|server_local|Rule)\]\s*$/im.test(text) ? 'Surge, Loon or Quantumult X' : undefined;
  if (program !== undefined) throw new ClashError(`it is a config of ${program}, which mihomo does not read; ${ASK_FOR_CLASH}`);
}

/** @throws ClashError: the document is the config of sing-box or Xray */
export function refuseForeignDocument(document: Fields): void {
  const outbounds = itemsOf(document['outbounds']);
  if (outbounds.length === 0 || document['proxies'] !== undefined) return;
  const program = outbounds.some((outbound) => outbound['protocol'] !== undefined) ? 'Xray (v2ray)' : 'sing-box';
  throw new ClashError(`it is a config of ${program}, which mihomo does not read; ${ASK_FOR_CLASH}`);
}

/** Reads SIP008, the JSON form of shadowsocks subscriptions (shadowsocks.org, doc/sip008): `{
 *  version, servers: [{ server, server_port, password, method, remarks, plugin, plugin_opts }]
 *  }`. @returns undefined when the document is none */
export function readSip008(document: Fields): Fields | undefined {
  const servers = itemsOf(document['servers']);
  if (document['proxies'] !== undefined || !servers.some((server) => 'server_port' in server && 'method' in server)) return undefined;
  return { proxies: servers.map((server, index) => sip008Node(server, index + 1)) };
}

function sip008Node(server: Fields, number: number): Fields {
  const [remarks = ''] = namesOf([server['remarks']]);
  return {
    name: remarks === '' ? `${textOf(server['server']) ?? ''}:${String(server['server_port'])} ${number}` : remarks,
    type: 'ss',
    server: server['server'],
    port: server['server_port'],
    cipher: server['method'],
    password: server['password'],
    udp: true,
    ...sip008Plugin(textOf(server['plugin']) ?? '', textOf(server['plugin_opts']) ?? ''),
  };
}

/** The options of a SIP003 plugin, `obfs=http;obfs-host=…`, by mihomo's names. */
function sip008Plugin(plugin: string, text: string): Fields {
  if (plugin === '') return {};
  const options = fieldsOf(
    Object.fromEntries(
      text.split(';').map((part) => [part.split('=', 1)[0] ?? '', part.includes('=') ? part.slice(part.indexOf('=') + 1) : 'true']),
    ),
  );
  if (plugin.includes('obfs')) return { plugin: 'obfs', 'plugin-opts': { mode: options['obfs'], host: options['obfs-host'] } };
  if (!plugin.includes('v2ray')) return { plugin, 'plugin-opts': options };
  const { mode = 'websocket', host, path, tls } = options;
  return { plugin: 'v2ray-plugin', 'plugin-opts': { mode, host, path, tls: tls !== undefined } };
}

const ACCOUNT =
  '剩余流量|剩餘流量|流量剩余|已用流量|总流量|可用流量|套餐到期|套餐有效期|到期时间|到期時間|过期时间|有效期|距离下次重置|下次重置|重置剩余|剩余天数|官网|官方网站|网址|公告|' +
  'remaining traffic|traffic(?: left| remaining)?|data left|expires?(?: on| at| in)?|expiry(?: date)?|expire date|expiration(?: date)?|days left|next reset|resets?(?: in| on)?';
/** The names of list entries that are only information: traffic left, the date of expiry, a web
 *  site. */
const PSEUDO_NODE = new RegExp(`^[^\\p{L}\\p{N}]{0,6}(?:${ACCOUNT})(?:剩余)?\\s*(?:[:：|]|\\d)`, 'iu');

/** Whether a node with this name is not a real node: providers list the state of the account among
 *  the nodes. */
export function isPseudoNode(name: string): boolean {
  return PSEUDO_NODE.test(name);
}
