import type { ClashConfig } from '../../config/schema.ts';
import { fieldsOf, type Fields } from '../../io/untrusted.ts';
import { omit } from '../subscription/document.ts';

export interface User {
  username: string;
  password: string;
}

/** The name of the listener that others of the cluster use. */
export const SHARED_LISTENER = 'shared';

/** What nobody's config decides: everything that opens a port, reaches into the machine, downloads by itself or says goodbye to
 *  the rules. Most come back below with the value that they have to have. */
const LOCKED = [
  'port',
  'socks-port',
  'mixed-port',
  'redir-port',
  'tproxy-port',
  'allow-lan',
  'bind-address',
  'lan-allowed-ips',
  'lan-disallowed-ips',
  'authentication',
  'skip-auth-prefixes',
  'external-controller',
  'external-controller-tls',
  'external-controller-unix',
  'external-controller-pipe',
  'external-controller-cors',
  'external-controller-routing-mark',
  'external-doh-server',
  'external-ui',
  'external-ui-name',
  'external-ui-url',
  'secret',
  'listeners',
  'tun',
  'tunnels',
  'tuic-server',
  'ss-config',
  'vmess-config',
  'ebpf',
  'iptables',
  'auto-redir',
  'mode',
  'profile',
  'find-process-mode',
  'geo-auto-update',
  'geo-update-interval',
  'geox-url',
  'inbound-tfo',
  'inbound-mptcp',
  'clash-for-android',
];

/** Which of `config`'s keys are locked, for messages. */
export function lockedKeys(config: Fields): string[] {
  const listens = Object.hasOwn(fieldsOf(config['dns']), 'listen') ? ['dns.listen'] : [];
  return [...Object.keys(config).filter((key) => LOCKED.includes(key)), ...listens];
}

/** Puts the locked keys in, last of all. */
export function lock(config: Fields, { own, users, secret }: { own: ClashConfig; users: readonly User[]; secret: string }): Fields {
  const { ports, controller } = own;
  const shared = { name: SHARED_LISTENER, type: 'mixed', listen: '0.0.0.0', port: ports.shared, udp: false, users };
  const dns = fieldsOf(config['dns']);
  return {
    ...omit(config, LOCKED),
    ...(Object.keys(dns).length === 0 ? {} : { dns: { ...dns, listen: '' } }),
    ...(Object.hasOwn(config, 'ntp') ? { ntp: { ...fieldsOf(config['ntp']), 'write-to-system': false } } : {}),
    'mixed-port': ports.proxy,
    'allow-lan': false,
    'bind-address': '127.0.0.1',
    listeners: ports.shared === 0 ? [] : [shared],
    'external-controller': `${controller.host.includes(':') ? `[${controller.host}]` : controller.host}:${controller.port}`,
    'external-controller-cors': { 'allow-origins': [], 'allow-private-network': false },
    secret,
    mode: 'rule',
    profile: { 'store-selected': false, 'store-fake-ip': false },
    'find-process-mode': 'off',
    'geo-auto-update': false,
    // The discard port: mihomo fetches geo files that are missing, and must not.
    'geox-url': Object.fromEntries(['geo-ip', 'geoip', 'geo-site', 'geosite', 'mmdb', 'asn'].map((key) => [key, 'http://127.0.0.1:9/'])),
  };
}
