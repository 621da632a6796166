import type { ClashConfig } from '../../config/schema.ts';
import { fieldsOf, type Fields } from '../../io/untrusted.ts';
import { omit } from '../subscription/document.ts';

export interface User {
  username: string;
  password: string;
}

/** The name of the listener that pods of the cluster use. */
export const SHARED_LISTENER = 'shared';

/** Keys that no config may set: those that open a port, change the machine, download files or
 *  bypass the rules. `lock` sets most of them to a fixed value. */
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

/** @returns the locked keys that `config` sets, for messages */
export function lockedKeys(config: Fields): string[] {
  const listens = Object.hasOwn(fieldsOf(config['dns']), 'listen') ? ['dns.listen'] : [];
  return [...Object.keys(config).filter((key) => LOCKED.includes(key)), ...listens];
}

/** Removes the locked keys from a config and sets the values that this program needs. */
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
    // The discard port: mihomo would download missing geo files.
    'geox-url': Object.fromEntries(['geo-ip', 'geoip', 'geo-site', 'geosite', 'mmdb', 'asn'].map((key) => [key, 'http://127.0.0.1:9/'])),
  };
}
