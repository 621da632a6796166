import type { ClashConfig } from '../../config/schema.ts';
import { fieldsOf, textOf, type Fields } from '../../io/untrusted.ts';
import { omit } from '../subscription/document.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import type { Note, Sourced } from './override.ts';
import { providerOf } from './parts.ts';

/** The content of a provider's URL. This program fetches it, since mihomo would log the URL and
 *  wait for it at start. */
export interface Resource {
  key: string;
  /** The provider, for messages: `rule-provider "ads"`. */
  name: string;
  /** For a rule-provider: the form that the content must have. */
  ruleSet?: { behavior: string; format: string };
  url: string;
  /** Milliseconds. */
  interval: number;
  headers: Record<string, string>;
  /** The user named the URL, which may be internal then; a subscription's may not. */
  own: boolean;
}

/** Mode nodes: one inline provider for each subscription's nodes. */
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

/** The status of /v2/ for a client that the registry serves: 200, 401 without a token, or 405 if it
 *  does not support HEAD. 403, 429, 5xx and redirects mean that the registry blocks the node's
 *  address, or that another server answers. */
const EXPECTED_STATUS = '200-299/401/405';

export function healthCheck({ healthCheck }: ClashConfig): { url: string; interval: number; 'expected-status': string } {
  const interval = Math.max(1, Math.round(healthCheck.interval / 1000));
  return { url: healthCheck.url, interval, 'expected-status': EXPECTED_STATUS };
}

/** mihomo judges a provider's node by the provider's check if the group tests the same URL: so the
 *  settings of the generated group, including the user's override, must be set on the provider
 *  too. */
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
  /** Files that exist already, by the resource's key: paths within mihomo's directory. */
  files: ReadonlyMap<string, string>;
  /** The resources to fetch are added here. */
  resources: Resource[];
  /** Names of the providers that the user wrote; undefined means all of them. */
  own: string[] | undefined;
  note: Note;
}

/** Replaces providers with a URL by providers with a file, whose content this program fetches. */
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
      // A rule set is empty until it is fetched, and mihomo logs that a proxy-provider's file is
      // missing.
      if (path === undefined && provider['behavior'] !== undefined)
        return [name, { ...omit(rest, ['format']), type: 'inline', payload: [] }];
      const compiled = path?.endsWith('.mrs') === true ? { format: 'mrs' } : {};
      return [name, { ...rest, ...compiled, type: 'file', path: path ?? `providers/${key}-none` }];
    }),
  );
}

/** In mihomo's config, the value of a header is a list. */
function headersOf(header: unknown): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fieldsOf(header)).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)]),
  );
}
