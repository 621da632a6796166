import { fieldsOf, textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';
import type { Copies } from '../subscription/copies.ts';
import type { Mihomo } from './mihomo.ts';
import { CANDIDATE } from './understand.ts';

/** The files of the directory: the config in use, and the last one through which a request has
 *  got. */
const CONFIG = 'config.json';
const GOOD = 'good.json';

/** Makes the candidate the config in use. */
export async function useCandidate(copies: Copies): Promise<void> {
  await copies.move(CANDIDATE, CONFIG);
}

/** Saves the config in use as good. */
export async function saveAsGood(copies: Copies): Promise<void> {
  const good = await copies.read(CONFIG);
  if (good !== undefined) await copies.write(GOOD, encodeConfig(good));
  await removeUnusedProviders(copies);
}

/** Makes the last good config the config in use, or, if there is none or mihomo refuses it,
 *  `nothing`: a config of today that refuses all traffic. */
export async function useLastGood({ copies, mihomo }: { copies: Copies; mihomo: Mihomo }, nothing: Fields): Promise<Fields> {
  const good = renew(await copies.read(GOOD), nothing);
  await copies.write(CONFIG, encodeConfig(good));
  if ((await mihomo.test(copies.path(CONFIG))) === undefined) return good;
  await copies.write(CONFIG, encodeConfig(nothing));
  return nothing;
}

/** Removes the files of providers that neither the config in use nor the last good one names. */
async function removeUnusedProviders(copies: Copies): Promise<void> {
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
