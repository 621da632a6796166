import type { Registry } from '../oci/registry.ts';

/** Creates a registry with `make` when it is first used: for registries that take memory and are
 *  rarely needed. */
export function lazy(make: () => Promise<Registry>): Registry {
  let made: Promise<Registry> | undefined;
  const get = (): Promise<Registry> => (made ??= make());
  return {
    resolve: async (...asked) => (await get()).resolve(...asked),
    manifest: async (...asked) => (await get()).manifest(...asked),
    stat: async (...asked) => (await get()).stat(...asked),
    blob: async (...asked) => (await get()).blob(...asked),
    async *tags(...asked) {
      yield* (await get()).tags(...asked);
    },
    referrers: async (...asked) => (await get()).referrers(...asked),
  };
}
