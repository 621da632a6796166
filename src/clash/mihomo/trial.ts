import type { Rendered } from '../config/render.ts';
import type { Fleet } from './fleet.ts';
import type { Instance } from './instance.ts';

/** The second mihomo, which runs a candidate. It ends with the trial, unless it is promoted. */
export interface Trial extends AsyncDisposable {
  /** Whether it starts with this config: that takes as long as `mihomo -t`, and nearly all
   *  candidates are good. */
  starts(config: Rendered): Promise<boolean>;
  /** The mihomo, started if it is not running. @throws Error: it does not start */
  instance(config: Rendered): Promise<Instance>;
  /** Clients use it from now on. @returns false if it is not running */
  promote(): boolean;
}

export function createTrial(fleet: Fleet): Trial {
  let running: Instance | undefined;
  let isPromoted = false;
  const instance = async ({ config, main }: Rendered): Promise<Instance> => (running ??= await fleet.trial({ config, main }));
  return {
    instance,
    starts: (config) =>
      instance(config).then(
        () => true,
        () => false, // `mihomo -t` says why
      ),
    promote() {
      if (running === undefined) return false;
      fleet.promote(running);
      return (isPromoted = true);
    },
    async [Symbol.asyncDispose]() {
      if (!isPromoted) await running?.stop();
    },
  };
}
