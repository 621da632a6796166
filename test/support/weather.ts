import type { Chance } from './chance.ts';
import type { Fault } from './faulty-proxy.ts';
import type { Behaviour } from './scripted-upstream.ts';

/** calm: no faults; rough: three of ten requests have one; down: nothing works. */
export type Weather = 'calm' | 'rough' | 'down';

const SHARE = { calm: 0, rough: 0.3, down: 1 };
const MiB = 2 ** 20;

/** Half of the time rough, a tenth of it down. */
export function nextWeather(chance: Chance): Weather {
  return chance.pick(['calm', 'calm', 'calm', 'calm', 'rough', 'rough', 'rough', 'rough', 'rough', 'down']);
}

/** The fault of an upstream in one request. `lie`: it sends wrong bytes. */
export function upstreamFault(weather: Weather, chance: Chance): Behaviour | 'lie' {
  if (!chance.happens(SHARE[weather])) return {};
  if (weather === 'down') return chance.pick<Behaviour>([{ hangUp: true }, { status: 502 }, { silent: true }]);
  const bytes = chance.below(4 * MiB);
  return chance.pick<Behaviour | 'lie'>([
    'lie',
    { cutAfter: bytes },
    { cutAfter: bytes },
    { silentAfter: bytes },
    { rate: 200_000 + chance.below(2_000_000) },
    { latency: chance.below(1500) },
    { status: 500 },
    { status: 503 },
    { status: 429, headers: { 'retry-after': '1' } },
    { hangUp: true },
    { silent: true },
    { ignoreRange: true },
    { noDigest: true },
    { chunked: true },
  ]);
}

/** The same of an S3. */
export function s3Fault(weather: Weather, chance: Chance): Fault {
  if (!chance.happens(SHARE[weather])) return {};
  if (weather === 'down') return chance.pick<Fault>([{ reset: true }, { status: 503 }, { silent: true }]);
  return chance.pick<Fault>([
    { latency: chance.below(1500) },
    { status: 500 },
    { status: 503, code: 'SlowDown' },
    { reset: true },
    { silent: true },
    { cutAfter: chance.below(2 * MiB) },
    { cutAfter: chance.below(2 * MiB) },
  ]);
}
