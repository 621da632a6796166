import { createSemaphore } from '../../async/semaphore.ts';
import { itemsOf, textsOf } from '../../io/untrusted.ts';
import type { Log } from '../../telemetry/log.ts';
import { renderNothing, type Inputs, type RenderContext, type Rendered } from '../config/render.ts';
import { parseRule } from '../config/rules.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError } from '../subscription/document.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import type { Fleet } from './fleet.ts';
import type { Instance, Spec } from './instance.ts';
import { createTrial, type Trial } from './trial.ts';
import type { Mihomo } from './mihomo.ts';
import { saveAsGood, useCandidate, useLastGood } from './saved-configs.ts';
import { understand, type Understood } from './understand.ts';

/** The outcome of a change: `applied`; `unchanged`, the config is the same as before; `unproven`,
 *  no request gets through with it; `invalid`, mihomo or this program refuses it. */
export type Outcome = 'applied' | 'unchanged' | 'unproven' | 'invalid';

export interface ApplyOptions {
  context: RenderContext;
  copies: Copies;
  mihomo: Mihomo;
  fleet: Fleet;
  /** Whether a request gets through this mihomo. */
  prove: (instance: Instance) => Promise<boolean>;
  log: Log;
}

export interface Applier {
  /** The inputs of the running config. Undefined: it is a former config, because none can be made
   *  now. */
  rendered(): Rendered | undefined;
  /** The target of traffic that no rule matches. */
  main(): string;
  inputs(): Inputs;
  /** Whether a request has got through the running config. */
  proven(): boolean;
  /** Why the last requested config is not the one in use. */
  problem(): string | undefined;
  /** Starts mihomo with a config made from `inputs`, or with the last good one, or with one that
   *  refuses all traffic. */
  begin(inputs: Inputs): Promise<void>;
  /** Tries other inputs in a second mihomo: it has to accept them, and a request has to get
   *  through. Only then do clients reach it.
   *  @throws Error: the second mihomo does not start */
  change(change: (inputs: Inputs) => Inputs): Promise<Outcome>;
  /** Sends a request through the running config unless one has got through, and saves the config as
   *  good. */
  confirm(): Promise<void>;
}

interface Applied extends ApplyOptions {
  inputs: Inputs;
  running: Running;
  /** As `Applier.proven`. */
  proven: boolean;
  /** As `Applier.problem`. */
  problem: string | undefined;
}

interface Running {
  rendered: Rendered | undefined;
  /** A fingerprint of the config. */
  name: string;
  main: string;
}

/** Applies changed inputs, one change at a time. */
export function createApplier(options: ApplyOptions): Applier {
  const applied: Applied = {
    ...options,
    inputs: { subscriptions: new Map(), users: [], resources: new Map(), banned: new Set() },
    running: { rendered: undefined, name: '', main: 'REJECT' },
    proven: false,
    problem: undefined,
  };
  const { run: inTurn } = createSemaphore(1);
  return {
    rendered: () => applied.running.rendered,
    main: () => applied.running.main,
    inputs: () => applied.inputs,
    proven: () => applied.proven,
    problem: () => applied.problem,
    begin: (first) => inTurn(() => begin(applied, first)),
    change: (change) => inTurn(() => tryChange(applied, change)),
    confirm: () => inTurn(() => confirm(applied)),
  };
}

async function begin(applied: Applied, first: Inputs): Promise<void> {
  const { fleet } = applied;
  applied.inputs = first;
  await using trial = createTrial(fleet);
  const spec = await firstConfig(applied, first, trial);
  if (!trial.promote()) fleet.begin(spec);
}

/** The config for the start: made from `first`, or the last good one, or one that refuses all
 *  traffic. */
async function firstConfig(applied: Applied, first: Inputs, trial: Trial): Promise<Spec> {
  const { context, copies, log } = applied;
  try {
    const candidate = await understand(first, { ...applied, starts: ({ rendered }) => trial.starts(rendered) });
    take(applied, candidate);
    await useCandidate(copies);
    return { config: candidate.rendered.config, main: candidate.rendered.main };
  } catch (error) {
    if (!(error instanceof ClashError)) throw error;
    applied.problem = error.message;
    log.error({ event: 'clash-config-refused' }, `${error.message}; the last good config is used`);
  }
  const config = await useLastGood(applied, renderNothing(context, first.users));
  const main = parseRule(textsOf(config['rules']).at(-1) ?? '')?.target ?? 'REJECT';
  applied.running.main = main;
  return { config, main };
}

async function tryChange(applied: Applied, change: (inputs: Inputs) => Inputs): Promise<Outcome> {
  try {
    applied.problem = undefined;
    return await attempt(applied, change(applied.inputs));
  } catch (error) {
    if (!(error instanceof ClashError)) throw error;
    applied.problem = error.message;
    return 'invalid';
  }
}

/** Runs the candidate in parallel to the config in use, and replaces that config if a request gets
 *  through, or if none gets through with either. */
async function attempt(applied: Applied, wanted: Inputs): Promise<Outcome> {
  const { copies, fleet, prove } = applied;
  const isSame = (text: string): boolean => fingerprint(text) === applied.running.name;
  await using trial = createTrial(fleet);
  const starts = async ({ rendered, text }: Omit<Understood, 'inputs'>) => isSame(text) || trial.starts(rendered);
  const candidate = await understand(wanted, { ...applied, starts });
  const { rendered } = candidate;
  refuseDocumentsWithoutNodes(wanted, applied.inputs, rendered);
  if (isSame(candidate.text)) {
    applied.inputs = candidate.inputs;
    applied.running.rendered = rendered;
    return 'unchanged';
  }
  const instance = await trial.instance(rendered);
  const works = await prove(instance);
  if (!works && (applied.proven || (await proveLive(applied)))) {
    if (!applied.proven) await remember(applied);
    applied.problem = 'nothing can be reached with the new config, so the former one is used';
    return 'unproven';
  }
  await useCandidate(copies);
  trial.promote();
  take(applied, candidate);
  applied.proven = false;
  if (works) await remember(applied);
  return 'applied';
}

function take(applied: Applied, { inputs, rendered, text }: Understood): void {
  applied.inputs = inputs;
  applied.running = { rendered, name: fingerprint(text), main: rendered.main };
}

async function confirm(applied: Applied): Promise<void> {
  if (!applied.proven && (await proveLive(applied))) await remember(applied);
}

/** Whether a request gets through the running config; there is nothing to test without a source of
 *  nodes. */
async function proveLive({ fleet, inputs, prove }: Applied): Promise<boolean> {
  const live = fleet.live();
  const hasSources = inputs.subscriptions.size > 0 || inputs.custom !== undefined;
  return hasSources && live !== undefined && (await prove(live));
}

async function remember(applied: Applied): Promise<void> {
  applied.proven = true;
  await saveAsGood(applied.copies);
}

/** @throws ClashError: a new document has lost all its nodes */
function refuseDocumentsWithoutNodes(wanted: Inputs, before: Inputs, { nodes }: Rendered): void {
  for (const [name, content] of wanted.subscriptions) {
    const isNew = before.subscriptions.get(name) !== content;
    const hadNodes = content.kind === 'clash' && itemsOf(content.document['proxies']).length > 0;
    if (isNew && hadNodes && !nodes.some(({ subscription }) => subscription === name)) {
      throw new ClashError(`subscription ${name}: mihomo understands none of its nodes`);
    }
  }
}
