import { createSecret } from '../config/secret.ts';
import type { ClashConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { fetchContent, rewriteProvider } from './fetch-content.ts';
import type { EntryReader } from './mihomo/entry-reader.ts';
import type { Copies, Copy } from './subscription/copies.ts';
import { ClashError } from './subscription/document.ts';
import { download, type Way } from './subscription/download.ts';
import { follow, type Fetched } from './subscription/feed.ts';
import { fingerprint } from './subscription/fingerprint.ts';
import type { Mihomo } from './mihomo/mihomo.ts';
import type { Offer } from './mihomo/offers.ts';
import { prepareRuleSet } from './mihomo/rule-sets.ts';
import type { Redactor } from './subscription/redact.ts';
import type { Resource } from './config/providers.ts';
import { parseUserInfo, type UserInfo } from './subscription/userinfo.ts';

/** Thousands of nodes take one MiB. */
const MAX_SUBSCRIPTION_BYTES = 4 * 2 ** 20;
const MAX_RESOURCE_BYTES = 16 * 2 ** 20;

export interface FeedsContext {
  own: ClashConfig;
  /** How to connect, for a value of the configuration's `proxy` keys: directly, or through a
   *  proxy's URL. */
  wayOf: (proxy: string) => Way;
  copies: Copies;
  redactor: Redactor;
  offer: Offer;
  reader: EntryReader;
  mihomo: Pick<Mihomo, 'version' | 'compileRules'>;
  log: Log;
  signal: AbortSignal;
}

export interface SubscriptionState {
  name: string;
  /** When the subscription in use was fetched, in ms since 1970; undefined: none is in use. */
  fetchedAt: number | undefined;
  userInfo: UserInfo;
  /** Why the last attempt to fetch or use it failed. */
  problem: string | undefined;
}

/** Fetches a subscription at its interval, until the signal. */
export function followSubscription(
  subscription: ClashConfig['subscriptions'][number],
  copy: Copy | undefined,
  context: FeedsContext,
): SubscriptionState {
  const { copies, redactor, offer, log, signal } = context;
  const { name } = subscription;
  const state: SubscriptionState = { name, fetchedAt: copy?.at, userInfo: copy?.userInfo ?? {}, problem: undefined };
  const secret = createSecret({ value: subscription.url, file: subscription.urlFile });
  for (const value of Object.values(subscription.headers)) redactor.add(value);
  const { headers } = subscription;

  async function fetch(from: string, fetched: Fetched): Promise<void> {
    const options = { way: context.wayOf(subscription.proxy), limit: MAX_SUBSCRIPTION_BYTES };
    const { content, headers: answered } = await fetchContent({
      download: (agent) => download(from, { ...options, headers: { 'user-agent': agent, ...headers } }, signal),
      userAgent: subscription.userAgent,
      version: context.mihomo.version,
      reader: context.reader,
      own: context.own,
      source: { subscription: name },
      log,
    });
    for (const note of content.notes ?? []) log.warn({ event: 'clash-entries-left-out', subscription: name }, redactor.clean(note));
    if (content.kind === 'clash') redactor.addNodes(content.document['proxies']);
    const userInfo = parseUserInfo(String(answered['subscription-userinfo'] ?? ''));
    await offer({
      source: `subscription ${name}`,
      change: (inputs) => ({
        ...inputs,
        subscriptions: inOrder(context.own, new Map(inputs.subscriptions).set(name, content)),
        banned: new Set(),
      }),
      async applied() {
        Object.assign(state, { fetchedAt: fetched.at, userInfo, problem: undefined });
        await copies.writeCopy(name, { ...fetched, content, userInfo, vettedBy: context.mihomo.version });
      },
      refused: (problem) => void (state.problem = problem),
    });
  }

  function failed(error: unknown): void {
    state.problem = problemOf(error, redactor);
    log.warn({ event: 'clash-subscription-failed', subscription: name }, `cannot download the subscription: ${state.problem}`);
  }

  void follow({ url: () => readUrl(secret, redactor), interval: subscription.interval, known: copy, fetch, failed, signal });
  return state;
}

/** @throws ClashError: the secret is no URL */
async function readUrl(secret: () => Promise<string>, redactor: Redactor): Promise<string> {
  const value = await secret();
  redactor.addUrl(value.trim());
  if (!/^https?:\/\/\S+$/.test(value.trim()) || !URL.canParse(value.trim()))
    throw new ClashError('its url or urlFile contains no URL that starts with https:// or http://');
  return value;
}

function problemOf(error: unknown, redactor: Redactor): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (!(error instanceof ClashError) && code !== undefined) return `its file cannot be read (${code})`;
  return redactor.clean(message);
}

function inOrder<T>({ subscriptions }: ClashConfig, map: ReadonlyMap<string, T>): Map<string, T> {
  return new Map(subscriptions.flatMap(({ name }) => (map.has(name) ? [[name, map.get(name) as T]] : [])));
}

export interface ResourceFeeds {
  /** Fetches these resources, and no others from now on. */
  follow(wanted: readonly Resource[]): void;
  /** Why the last content of a resource cannot be used. */
  problem(): string | undefined;
}

/** Fetches the URLs of providers in the current config. Unusable content never replaces usable
 *  content. */
export function createResourceFeeds(context: FeedsContext): ResourceFeeds {
  const { wayOf, redactor, offer, own, log, signal } = context;
  const running = new Map<string, AbortController>();
  const problems = new Map<string, string>();

  function start(resource: Resource): AbortController {
    const { key, url, headers, interval, own: trusted } = resource;
    const stop = new AbortController();
    redactor.addUrl(url);
    const limited = AbortSignal.any([signal, stop.signal]);
    const options = { headers: { 'user-agent': 'clash.meta', ...headers }, limit: MAX_RESOURCE_BYTES, foreign: !trusted };
    const direct = (from: string) => download(from, { ...options, way: wayOf('direct') }, limited);
    async function fetch(from: string): Promise<void> {
      const { bytes } = await direct(from).catch(() => download(from, { ...options, way: wayOf(ownProxy(own)) }, limited));
      const path = await store(context, resource, bytes);
      await offer({
        source: `resource ${key}`,
        change: (inputs) => ({ ...inputs, resources: new Map(inputs.resources).set(key, path) }),
        applied: () => Promise.resolve(void problems.delete(key)),
        refused: (problem) => refused(resource, problem),
      });
    }
    const failed = (error: unknown) => refused(resource, problemOf(error, redactor));
    void follow({ url: () => Promise.resolve(url), interval, fetch, failed, signal: limited });
    return stop;
  }

  function refused({ key, name }: Resource, problem: string): void {
    const text = `${name}: the content of its URL cannot be used: ${problem}`;
    if (problems.get(key) !== text)
      log.warn({ event: 'clash-provider-unusable', provider: name, problem }, 'cannot update a provider; using its last good copy');
    problems.set(key, text);
  }

  return {
    follow(wanted) {
      for (const [key, stop] of running) {
        if (wanted.some((resource) => resource.key === key)) continue;
        stop.abort();
        running.delete(key);
        problems.delete(key);
      }
      for (const resource of wanted) if (!running.has(resource.key)) running.set(resource.key, start(resource));
    },
    problem: () => [...problems.values()][0],
  };
}

/** Writes the content under a unique name, so that a former config still finds its own file.
 *  @throws ClashError: it has no rule or no node */
async function store(
  { copies, mihomo, reader, own, redactor, log }: FeedsContext,
  { key, name, ruleSet }: Resource,
  bytes: Uint8Array,
): Promise<string> {
  const path = `providers/${key}-${fingerprint(bytes)}`;
  if (ruleSet !== undefined) return prepareRuleSet(bytes, { ...ruleSet, path, copies, mihomo });
  const { file, notes } = await rewriteProvider(bytes, { reader, own });
  for (const note of notes) log.warn({ event: 'clash-entries-left-out', provider: name }, redactor.clean(note));
  await copies.write(path, file);
  return path;
}

/** This sidecar's own proxy, as a value of the configuration's `proxy` keys. */
function ownProxy({ ports }: ClashConfig): string {
  return ports.proxy === 0 ? 'direct' : `http://127.0.0.1:${ports.proxy}`;
}
