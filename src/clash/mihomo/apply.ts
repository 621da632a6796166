import { createSemaphore } from '../../async/semaphore.ts';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import type { Log } from '../../telemetry/log.ts';
import { encodeConfig } from '../config/encode.ts';
import { renderNothing, type Inputs, type RenderContext, type Rendered } from '../config/render.ts';
import { parseRule } from '../config/rules.ts';
import type { Content } from '../subscription/content.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError } from '../subscription/document.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import type { Fleet } from './fleet.ts';
import type { Instance, Spec } from './instance.ts';
import type { Mihomo } from './mihomo.ts';
import { CANDIDATE, understand, type Understood } from './understand.ts';

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

/** The files of the directory: the config in use, and the last one proven by a request. */
const CONFIG = 'config.json';
const GOOD = 'good.json';

interface Running {
  rendered: Rendered | undefined;
  /** A fingerprint of the config. */
  name: string;
  main: string;
}

/** Applies changed inputs, one change at a time. */
export function createApplier({ context, copies, mihomo, fleet, prove, log }: ApplyOptions): Applier {
  let inputs: Inputs = { subscriptions: new Map(), users: [], resources: new Map(), banned: new Set() };
  let running: Running = { rendered: undefined, name: '', main: 'REJECT' };
  let proven = false;
  let problem: string | undefined;
  const { run: inTurn } = createSemaphore(1);

  async function remember(): Promise<void> {
    proven = true;
    const good = await copies.read(CONFIG);
    if (good !== undefined) await copies.write(GOOD, encodeConfig(good));
    await removeUnused(copies);
  }

  /** Whether the inputs have any source of nodes. */
  const hasSources = () => inputs.subscriptions.size > 0 || inputs.custom !== undefined;

  async function proveLive(): Promise<boolean> {
    const live = fleet.live();
    return live !== undefined && (await prove(live));
  }

  /** Runs the candidate beside the config in use, and puts it in its place if a request gets
   *  through, or if none does now. */
  async function attempt(wanted: Inputs): Promise<Outcome> {
    let instance: Instance | undefined;
    let promoted = false;
    const trial = ({ config, main }: Rendered) => fleet.trial({ config, main });
    /** Starting the candidate takes as long as `mihomo -t`, and nearly all candidates are good. */
    const starts = async ({ rendered, text }: Omit<Understood, 'inputs'>): Promise<boolean> => {
      if (fingerprint(text) === running.name) return true;
      instance = await trial(rendered).catch(() => undefined); // `mihomo -t` says why
      return instance !== undefined;
    };
    try {
      const candidate = await understand(wanted, { context, copies, mihomo, starts, log });
      const { rendered } = candidate;
      const fresh = [...wanted.subscriptions].filter(([name, content]) => inputs.subscriptions.get(name) !== content);
      const senseless = documentWithoutNodes(fresh, rendered);
      if (senseless !== undefined) throw new ClashError(`subscription ${senseless}: mihomo understands none of its nodes`);
      const name = fingerprint(candidate.text);
      if (name === running.name) {
        inputs = candidate.inputs;
        running.rendered = rendered;
        return 'unchanged';
      }
      instance ??= await trial(rendered);
      const works = await prove(instance);
      if (!works && (proven || (hasSources() && (await proveLive())))) {
        if (!proven) await remember();
        problem = 'nothing can be reached with the new config, so the former one is used';
        return 'unproven';
      }
      await copies.move(CANDIDATE, CONFIG);
      fleet.promote(instance);
      promoted = true;
      inputs = candidate.inputs;
      running = { rendered, name, main: rendered.main };
      proven = false;
      if (works) await remember();
      return 'applied';
    } finally {
      if (!promoted) await instance?.stop();
    }
  }

  /** The config for the start: made from `first`, or the last good one, or one that refuses all
   *  traffic. */
  async function firstConfig(first: Inputs): Promise<Spec> {
    try {
      const { inputs: usable, rendered, text } = await understand(first, { context, copies, mihomo, log });
      inputs = usable;
      running = { rendered, name: fingerprint(text), main: rendered.main };
      await copies.move(CANDIDATE, CONFIG);
      return { config: rendered.config, main: rendered.main };
    } catch (error) {
      if (!(error instanceof ClashError)) throw error;
      problem = error.message;
      log.error({ event: 'clash-config-refused' }, `${error.message}; the last good config is used`);
    }
    const nothing = renderNothing(context, first.users);
    let config = renew(await copies.read(GOOD), nothing);
    await copies.write(CONFIG, encodeConfig(config));
    if ((await mihomo.test(copies.path(CONFIG))) !== undefined) {
      config = nothing;
      await copies.write(CONFIG, encodeConfig(nothing));
    }
    running.main = parseRule(textsOf(config['rules']).at(-1) ?? '')?.target ?? 'REJECT';
    return { config, main: running.main };
  }

  return {
    rendered: () => running.rendered,
    main: () => running.main,
    inputs: () => inputs,
    proven: () => proven,
    problem: () => problem,

    async begin(first) {
      inputs = first;
      fleet.begin(await firstConfig(first));
    },

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
        if (!proven && hasSources() && (await proveLive())) await remember();
      }),
  };
}

/** The name of a new document that has lost all its nodes. */
function documentWithoutNodes(fresh: readonly [string, Content][], { nodes }: Rendered): string | undefined {
  const documents = fresh.filter(([, content]) => content.kind === 'clash' && itemsOf(content.document['proxies']).length > 0);
  return documents.find(([name]) => !nodes.some(({ subscription }) => subscription === name))?.[0];
}

/** Removes the files of providers that neither the config in use nor the last good one names. */
async function removeUnused(copies: Copies): Promise<void> {
  const configs = [await copies.read(CONFIG), await copies.read(GOOD)];
  const providers = configs.flatMap((config) =>
    ['proxy-providers', 'rule-providers'].flatMap((key) => Object.values(fieldsOf(config?.[key]))),
  );
  await copies.keepProviders(new Set(providers.map((provider) => textOf(fieldsOf(provider)['path']) ?? '')));
}

/** A former config with today's ports, secret, users and first rule, all of which `nothing` has. */
function renew(good: Fields | undefined, nothing: Fields): Fields {
  if (good === undefined) return nothing;
  return { ...good, ...nothing, rules: [...textsOf(nothing['rules']).slice(0, -1), ...textsOf(good['rules'])] };
}
