import type { Log } from '../../telemetry/log.ts';
import { encodeConfig } from '../config/encode.ts';
import { render, type Inputs, type RenderContext, type Rendered } from '../config/render.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError } from '../subscription/document.ts';
import type { Mihomo } from './mihomo.ts';
import { findRefused, type Refused } from './refused.ts';

/** The file in which a config is tested. */
export const CANDIDATE = 'candidate.json';

export interface UnderstandContext {
  context: RenderContext;
  copies: Copies;
  mihomo: Pick<Mihomo, 'test'>;
  /** Starts mihomo with the config. True: mihomo accepts it, and `mihomo -t` is not needed.
   *  Called for the first candidate only. */
  starts?: (candidate: Omit<Understood, 'inputs'>) => Promise<boolean>;
  log: Log;
}

/** A config that mihomo accepts. */
export interface Understood {
  /** The inputs without the entries that mihomo refuses. */
  inputs: Inputs;
  rendered: Rendered;
  /** The content of the candidate's file. */
  text: string;
}

/** Renders a config, and leaves out the entries of subscriptions that mihomo refuses. Writes the
 *  result into the candidate's file.
 *  @throws ClashError: mihomo refuses an entry of the user's, or something that cannot be left
 *  out */
export async function understand(wanted: Inputs, { context, copies, mihomo, starts, log }: UnderstandContext): Promise<Understood> {
  const banned = new Set(wanted.banned);
  for (let round = 0; ; round++) {
    const rendered = render({ ...wanted, banned }, context);
    for (const [path, text] of rendered.files) await copies.write(path, text);
    const text = encodeConfig(rendered.config);
    await copies.write(CANDIDATE, text);
    const started = round === 0 && (await starts?.({ rendered, text })) === true;
    const complaint = started ? undefined : await mihomo.test(copies.path(CANDIDATE));
    if (complaint === undefined) return { inputs: { ...wanted, banned }, rendered, text };
    const refused = await findRefused(complaint, rendered, { context, copies, mihomo });
    const fresh = refused.filter(({ subject }) => !banned.has(subject));
    const own = refused.find((entry) => entry.own);
    if (own !== undefined) throw new ClashError(`${own.place}: ${own.complaint}`);
    if (fresh.length === 0) throw new ClashError(`the config: ${complaint}`);
    for (const { subject } of fresh) banned.add(subject);
    report(fresh, log);
  }
}

/** Log lines for one candidate. */
const MAX_REPORTED = 20;

function report(refused: readonly Refused[], log: Log): void {
  for (const { place, complaint } of refused.slice(0, MAX_REPORTED)) {
    log.warn({ event: 'clash-entry-left-out', place }, `left out, since mihomo does not understand it: ${place}: ${complaint}`);
  }
  const more = refused.length - MAX_REPORTED;
  if (more > 0) log.warn({ event: 'clash-entry-left-out', more }, `left out, since mihomo does not understand them: ${more} more entries`);
}
