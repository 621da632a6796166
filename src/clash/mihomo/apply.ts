import type { Log } from '../../telemetry/log.ts';
import type { Content } from '../subscription/content.ts';
import type { Controller } from './controller.ts';
import type { Copies } from '../subscription/copies.ts';
import { ClashError } from '../subscription/document.ts';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { fingerprint } from '../subscription/fingerprint.ts';
import type { Mihomo } from './mihomo.ts';
import { providerOf } from '../config/parts.ts';
import { parseRule } from '../config/rules.ts';
import { renderNothing, type Inputs, type RenderContext, type Rendered } from '../config/render.ts';
import { createSemaphore } from '../../async/semaphore.ts';
import { CANDIDATE, understand } from './understand.ts';

/** What came of a change: used; the same as before; understood, but without a way out; not understood. */
export type Outcome = 'applied' | 'unchanged' | 'unproven' | 'invalid';

export interface ApplyOptions {
  context: RenderContext;
  copies: Copies;
  mihomo: Mihomo;
  controller: Controller;
  /** A request through the proxy; true: somebody answered it. */
  prove: (group: string) => Promise<boolean>;
  log: Log;
}

export interface Applier {
  /** What mihomo runs with. Undefined: a config of before, because none can be made now. */
  rendered(): Rendered | undefined;
  /** Where that goes which no rule matches. */
  main(): string;
  inputs(): Inputs;
  /** Whether a request has been through what runs. */
  proven(): boolean;
  /** Why what was asked for last is not what runs. */
  problem(): string | undefined;
  /** Makes the file that mihomo starts with, of `inputs`, or of what was good last, or of nothing. */
  begin(inputs: Inputs): Promise<void>;
  /** Tries other inputs: `mihomo -t`, then the running mihomo, then a request; where that fails, what ran before runs again. */
  change(change: (inputs: Inputs) => Inputs): Promise<Outcome>;
  /** Asks whether what runs works, and remembers it as good. */
  confirm(): Promise<void>;
}

/** The files of the directory: what mihomo runs with, and the config that a request has been through. */
export const CONFIG = 'config.json';
const GOOD = 'good.json';

export function createApplier({ context, copies, mihomo, controller, prove, log }: ApplyOptions): Applier {
  let inputs: Inputs = { subscriptions: new Map(), users: [], resources: new Map(), banned: new Set() };
  let running: { rendered: Rendered | undefined; name: string; main: string } = { rendered: undefined, name: '', main: 'REJECT' };
  let proven = false;
  let problem: string | undefined;
  const { run: inTurn } = createSemaphore(1);

  /** Subscriptions that are not what they were. */
  function fresh({ subscriptions }: Inputs): [string, Content][] {
    return [...subscriptions].filter(([name, content]) => inputs.subscriptions.get(name) !== content);
  }

  /** A new document of whose nodes none is left. */
  function emptyDocument(wanted: Inputs, { nodes }: Rendered): string | undefined {
    const documents = fresh(wanted).filter(([, content]) => content.kind === 'clash' && itemsOf(content.document['proxies']).length > 0);
    return documents.find(([name]) => !nodes.some(({ subscription }) => subscription === name))?.[0];
  }

  /** A new list of URIs of which mihomo made nothing. */
  async function emptyList(wanted: Inputs): Promise<string | undefined> {
    for (const [name, content] of fresh(wanted)) {
      if (content.kind === 'uris' && (await controller.providerSize(providerOf(name))) === 0) return name;
    }
    return undefined;
  }

  async function remember(): Promise<void> {
    proven = true;
    const good = await copies.read(CONFIG);
    if (good !== undefined) await copies.write(GOOD, JSON.stringify(good));
    await prune();
  }

  /** Files of providers that neither what runs nor what was good needs. */
  async function prune(): Promise<void> {
    const configs = [await copies.read(CONFIG), await copies.read(GOOD)];
    const providers = configs.flatMap((config) =>
      ['proxy-providers', 'rule-providers'].flatMap((key) => Object.values((config?.[key] ?? {}) as Fields)),
    );
    await copies.keepProviders(new Set(providers.map((provider) => textOf(fieldsOf(provider)['path']) ?? '')));
  }

  async function attempt(wanted: Inputs): Promise<Outcome> {
    const candidate = await understand(wanted, { context, copies, mihomo, log });
    const senseless = emptyDocument(wanted, candidate.rendered);
    if (senseless !== undefined) throw new ClashError(`subscription ${senseless}: mihomo understands none of its nodes`);
    const name = fingerprint(candidate.text);
    if (name === running.name) {
      inputs = candidate.inputs;
      running.rendered = candidate.rendered;
      return 'unchanged';
    }
    const something = inputs.subscriptions.size > 0 || inputs.custom !== undefined;
    if (!proven && something && (await prove(running.main))) await remember(); // what works is not given up
    const restarts = mihomo.restarts();
    await controller.apply(copies.path(CANDIDATE));
    const empty = await emptyList(wanted);
    if (empty !== undefined) {
      await controller.apply(copies.path(CONFIG));
      throw new ClashError(`subscription ${empty}: mihomo finds no node in it`);
    }
    const works = await prove(candidate.rendered.main);
    // It has come back with the former config, which may be what was proven.
    if (mihomo.restarts() !== restarts) throw new Error('mihomo has ended meanwhile');
    if (!works && proven) {
      await controller.apply(copies.path(CONFIG));
      problem = 'nothing can be reached with the new config, so the former one is used';
      return 'unproven';
    }
    await copies.move(CANDIDATE, CONFIG);
    inputs = candidate.inputs;
    running = { rendered: candidate.rendered, name, main: candidate.rendered.main };
    proven = false;
    if (works) await remember();
    return 'applied';
  }

  return {
    rendered: () => running.rendered,
    main: () => running.main,
    inputs: () => inputs,
    proven: () => proven,
    problem: () => problem,

    async begin(first) {
      inputs = first;
      try {
        const { inputs: usable, rendered, text } = await understand(first, { context, copies, mihomo, log });
        inputs = usable;
        running = { rendered, name: fingerprint(text), main: rendered.main };
        await copies.move(CANDIDATE, CONFIG);
        return;
      } catch (error) {
        if (!(error instanceof ClashError)) throw error;
        problem = error.message;
        log.error(`${error.message}; the config that was good last is used`);
      }
      const nothing = renderNothing(context, first.users);
      await copies.write(CONFIG, JSON.stringify(renew(await copies.read(GOOD), nothing)));
      if ((await mihomo.test(copies.path(CONFIG))) !== undefined) await copies.write(CONFIG, JSON.stringify(nothing));
      running.main = parseRule(textsOf((await copies.read(CONFIG))?.['rules']).at(-1) ?? '')?.target ?? 'REJECT';
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
        if (!proven && (await prove(running.main))) await remember();
      }),
  };
}

/** A config of before with the ports, the secret, the users and the first rule of today, all of which `nothing` has. */
function renew(good: Fields | undefined, nothing: Fields): Fields {
  if (good === undefined) return nothing;
  return { ...good, ...nothing, rules: [...textsOf(nothing['rules']).slice(0, -1), ...textsOf(good['rules'])] };
}
