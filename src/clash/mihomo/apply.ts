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

interface Running {
  rendered: Rendered | undefined;
  /** A fingerprint of the config. */
  name: string;
  main: string;
}

/** Applies changed inputs, one change at a time. */
export function createApplier(options: ApplyOptions): Applier {
  const { copies, fleet, prove } = options;
  let inputs: Inputs = { subscriptions: new Map(), users: [], resources: new Map(), banned: new Set() };
  let running: Running = { rendered: undefined, name: '', main: 'REJECT' };
  let proven = false;
  let problem: string | undefined;
  const { run: inTurn } = createSemaphore(1);

  async function remember(): Promise<void> {
    proven = true;
    await saveAsGood(copies);
  }

  /** Whether a request gets through the running config; there is nothing to test without a source
   *  of nodes. */
  async function proveLive(): Promise<boolean> {
    const live = fleet.live();
    const hasSources = inputs.subscriptions.size > 0 || inputs.custom !== undefined;
    return hasSources && live !== undefined && (await prove(live));
  }

  /** Runs the candidate in parallel to the config in use, and replaces that config if a request
   *  gets through, or if none gets through with either. */
  async function attempt(wanted: Inputs): Promise<Outcome> {
    await using trial = createTrial(fleet);
    const starts = async ({ rendered, text }: Omit<Understood, 'inputs'>) => isSame(text) || trial.starts(rendered);
    const candidate = await understand(wanted, { ...options, starts });
    const { rendered } = candidate;
    refuseDocumentsWithoutNodes(wanted, inputs, rendered);
    if (isSame(candidate.text)) {
      inputs = candidate.inputs;
      running.rendered = rendered;
      return 'unchanged';
    }
    const instance = await trial.instance(rendered);
    const works = await prove(instance);
    if (!works && (proven || (await proveLive()))) {
      if (!proven) await remember();
      problem = 'nothing can be reached with the new config, so the former one is used';
      return 'unproven';
    }
    await useCandidate(copies);
    trial.promote();
    take(candidate);
    proven = false;
    if (works) await remember();
    return 'applied';
  }

  const isSame = (text: string): boolean => fingerprint(text) === running.name;

  function take({ inputs: usable, rendered, text }: Understood): void {
    inputs = usable;
    running = { rendered, name: fingerprint(text), main: rendered.main };
  }

  /** The config for the start: made from `first`, or the last good one, or one that refuses all
   *  traffic. */
  async function firstConfig(first: Inputs, trial: Trial): Promise<Spec> {
    try {
      const candidate = await understand(first, { ...options, starts: ({ rendered }) => trial.starts(rendered) });
      take(candidate);
      await useCandidate(copies);
      return { config: candidate.rendered.config, main: running.main };
    } catch (error) {
      if (!(error instanceof ClashError)) throw error;
      problem = error.message;
      options.log.error({ event: 'clash-config-refused' }, `${error.message}; the last good config is used`);
    }
    const config = await useLastGood(options, renderNothing(options.context, first.users));
    running.main = parseRule(textsOf(config['rules']).at(-1) ?? '')?.target ?? 'REJECT';
    return { config, main: running.main };
  }

  return {
    rendered: () => running.rendered,
    main: () => running.main,
    inputs: () => inputs,
    proven: () => proven,
    problem: () => problem,

    begin: (first) =>
      inTurn(async () => {
        inputs = first;
        await using trial = createTrial(fleet);
        const spec = await firstConfig(first, trial);
        if (!trial.promote()) fleet.begin(spec);
      }),

    change: (change) =>
      inTurn(async () => {
        try {
          problem = undefined;
          return await attempt(change(inputs));
        } catch (error) {
          if (!(error instanceof ClashError)) throw error;
          problem = error.message;
          return 'invalid';
        }
      }),

    confirm: () =>
      inTurn(async () => {
        if (!proven && (await proveLive())) await remember();
      }),
  };
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
