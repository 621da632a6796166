import type { ClashConfig } from '../../config/schema.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { omit } from '../subscription/document.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import type { Note, Sourced } from './override.ts';
import { providerOf } from './parts.ts';

/** What a provider's URL brings. This program fetches it: mihomo would print the URL, and would wait for it at its start. */
export interface Resource {
  key: string;
  /** The provider, for messages: `rule-provider "ads"`. */
  name: string;
  /** Of a rule-provider: what the content has to be. */
  ruleSet?: { behavior: string; format: string };
  url: string;
  /** Milliseconds. */
  interval: number;
  headers: Record<string, string>;
  /** Named by the user, who may go to internal addresses; a subscription may not. */
  own: boolean;
}

/** Mode nodes: each subscription's nodes as a provider. */
export function nodeProviders(proxies: readonly Sourced<Fields>[], own: ClashConfig): Record<string, Fields> {
  const providers: Record<string, Fields> = {};
  if (own.mode !== 'nodes') return providers;
  for (const { value, subscription } of proxies) {
    if (subscription === undefined) continue;
    const provider = (providers[providerOf(subscription)] ??= { type: 'inline', payload: [] });
    (provider['payload'] as Fields[]).push(value);
  }
  return providers;
}

/** What a registry answers at /v2/ to a client that it serves: 200, 401 without a token, or 405 where HEAD is not known. 403, 429, 5xx
 *  and redirects say that the node's address is not welcome, or that something else than the registry answers. */
const EXPECTED_STATUS = '200-299/401/405';

export function healthCheck({ healthCheck }: ClashConfig): { url: string; interval: number; 'expected-status': string } {
  const interval = Math.max(1, Math.round(healthCheck.interval / 1000));
  return { url: healthCheck.url, interval, 'expected-status': EXPECTED_STATUS };
}

/** mihomo judges a node of a provider by the provider's check, where the group tests the same URL: what stands in the
 *  generated group, with the user's override of it, has to stand there too. */
export function withHealthChecks(providers: Record<string, Fields>, own: ClashConfig, group: Fields | undefined): Record<string, Fields> {
  const {
    url,
    interval = healthCheck(own).interval,
    'expected-status': expected = '*',
  }: Fields = group?.['url'] === undefined ? healthCheck(own) : group;
  const check = { enable: true, url, interval, 'expected-status': expected, lazy: own.mode !== 'nodes' };
  return Object.fromEntries(Object.entries(providers).map(([name, provider]) => [name, { 'health-check': check, ...provider }]));
}

interface HttpContext {
  /** Files that are there already, by the resource's key: paths within mihomo's directory. */
  files: ReadonlyMap<string, string>;
  /** What is to be fetched is added here. */
  resources: Resource[];
  /** Names of the providers that the user wrote; undefined: all. */
  own: string[] | undefined;
  note: Note;
}

/** Providers with a URL become files that this program fetches. */
export function withoutHttp(providers: Fields, { files, resources, own, note }: HttpContext): Record<string, Fields> {
  return Object.fromEntries(
    Object.entries(providers).map(([name, value]) => {
      const provider = fieldsOf(value);
      const url = provider['url'];
      if (provider['type'] !== 'http' || typeof url !== 'string') return [name, provider];
      const headers = headersOf(provider['header']);
      const key = fingerprint(url, JSON.stringify(headers));
      const seconds = Number(provider['interval'] ?? 86_400);
      const interval = Math.max(3600, Number.isFinite(seconds) ? seconds : 86_400) * 1000;
      if (!resources.some((resource) => resource.key === key)) {
        const rules = provider['behavior'] !== undefined;
        const ruleSet = {
          behavior: (textOf(provider['behavior']) ?? '').toLowerCase(),
          format: (textOf(provider['format']) ?? 'yaml').toLowerCase(),
        };
        const kind = rules ? 'rule-provider' : 'proxy-provider';
        resources.push({
          key,
          name: `${kind} ${JSON.stringify(name)}`,
          url,
          interval,
          headers,
          own: own === undefined || own.includes(name),
          ...(rules ? { ruleSet } : {}),
        });
      }
      const rest = omit(provider, ['url', 'interval', 'header', 'proxy', 'size-limit', 'path']);
      const path = files.get(key);
      if (path === undefined)
        note(`${provider['behavior'] === undefined ? 'proxy' : 'rule'}-provider ${JSON.stringify(name)} has not been fetched yet`);
      // Rules that are not there yet are none; nodes that are not there make mihomo say so.
      if (path === undefined && provider['behavior'] !== undefined)
        return [name, { ...omit(rest, ['format']), type: 'inline', payload: [] }];
      const compiled = path?.endsWith('.mrs') === true ? { format: 'mrs' } : {};
      return [name, { ...rest, ...compiled, type: 'file', path: path ?? `providers/${key}-none` }];
    }),
  );
}

/** mihomo writes a header's values as a list. */
function headersOf(header: unknown): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fieldsOf(header)).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)]),
  );
}
