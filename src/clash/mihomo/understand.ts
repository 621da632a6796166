import type { Log } from '../../telemetry/log.ts';
import { itemsOf, type Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';
import { render, type Inputs, type RenderContext, type Rendered } from '../config/render.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError, nameOf } from '../subscription/document.ts';
import type { Mihomo } from './mihomo.ts';

/** The file that a config is tested in. */
export const CANDIDATE = 'candidate.json';
/** After this many entries that mihomo refuses, the whole config is refused. */
const MAX_BANS = 50;

export interface UnderstandContext {
  context: RenderContext;
  copies: Copies;
  mihomo: Pick<Mihomo, 'test'>;
  log: Log;
}

/** A config that `mihomo -t` accepts. */
export interface Understood {
  /** The inputs without the entries that mihomo refuses. */
  inputs: Inputs;
  rendered: Rendered;
  /** What the candidate's file holds. */
  text: string;
}

/** Renders a config, and leaves out the entries of subscriptions that mihomo refuses. Writes the result into the candidate's file.
 *  @throws ClashError: mihomo refuses an entry of the user's, or something that cannot be left out */
export async function understand(wanted: Inputs, { context, copies, mihomo, log }: UnderstandContext): Promise<Understood> {
  const banned = new Set(wanted.banned);
  for (;;) {
    const rendered = render({ ...wanted, banned }, context);
    for (const [path, text] of rendered.files) await copies.write(path, text);
    const text = encodeConfig(rendered.config);
    await copies.write(CANDIDATE, text);
    const complaint = await mihomo.test(copies.path(CANDIDATE));
    if (complaint === undefined) return { inputs: { ...wanted, banned }, rendered, text };
    const { own, subject, place } = blame(complaint, rendered);
    if (own || subject === undefined || banned.size >= MAX_BANS) throw new ClashError(`${place}: ${complaint}`);
    log.warn({ event: 'clash-entry-left-out', place }, `left out, since mihomo does not understand it: ${complaint}`);
    banned.add(subject);
  }
}

interface Blame {
  /** What the user wrote is told, what others wrote is left out. */
  own: boolean;
  /** A node's name, or a rule. */
  subject?: string | undefined;
  place: string;
}

/** Whose the thing is that mihomo complains about: `proxy 3: …`, `rules[7] […] error: …`,
 *  `parse proxy provider subscription x error: proxy 3 error: …`, `proxy group[2]: …`. */
function blame(complaint: string, { config, proxies, rules }: Rendered): Blame {
  const provider = /^parse proxy provider (.+?) error: proxy (\d+) error/.exec(complaint);
  if (provider !== null) {
    const [, name = '', index] = provider;
    const definition = ((config['proxy-providers'] ?? {}) as Record<string, Fields>)[name];
    const subject = nameOf(itemsOf(definition?.['payload'])[Number(index)] ?? {});
    return { own: false, subject: subject === '' ? undefined : subject, place: `${name}, node ${JSON.stringify(subject)}` };
  }
  const proxy = proxies[Number(/^proxy (\d+)\b/.exec(complaint)?.[1] ?? Number.NaN)];
  if (proxy !== undefined) {
    const subject = nameOf(proxy.value);
    return { own: proxy.own, subject, place: `${proxy.origin}, node ${JSON.stringify(subject)}` };
  }
  const rule = rules[Number(/^rules\[(\d+)\]/.exec(complaint)?.[1] ?? Number.NaN)];
  if (rule !== undefined) return { own: rule.own, subject: rule.value, place: rule.origin };
  return { own: false, place: 'the config' };
}
