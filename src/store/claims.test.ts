import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { memory } from '../testing/memory-store.ts';
import { beginSweep, createClaimer, noClaims } from './claims.ts';
import { CLAIMS, SWEEPS } from './keys.ts';
import type { Store } from './store.ts';

const digest = digestOf(Buffer.from('blob'));
const { signal } = new AbortController();

async function sweepsIn(store: Store): Promise<number> {
  let count = 0;
  for await (const _ of store.list(SWEEPS, { signal })) count++;
  return count;
}

test('a pruning run that cannot read the claims after announcing its sweep lets pushes continue', async () => {
  const store = memory();
  let lists = 0;
  const failing: Store = {
    ...store,
    list(prefix, context) {
      if (prefix === CLAIMS && ++lists === 2) throw new OciError('UNAVAILABLE', 'the storage is down');
      return store.list(prefix, context);
    },
  };
  await assert.rejects(beginSweep(failing, [digest], { claims: noClaims(), signal }), { code: 'UNAVAILABLE' });
  assert.equal(lists, 2);
  assert.equal(await sweepsIn(store), 0);
  await createClaimer(store).claim([digest], signal);
});

test('simultaneous pushes share their claims, and a claim that prunings already respect is not written again', async () => {
  const store = memory();
  let writes = 0;
  const counting: Store = {
    ...store,
    write(...parameters) {
      writes++;
      return store.write(...parameters);
    },
  };
  const claimer = createClaimer(counting);
  const digests = Array.from({ length: 100 }, (_, index) => digestOf(Buffer.from(String(index))));
  await Promise.all(digests.map((one) => claimer.claim([digest, one], signal)));
  assert.ok(writes <= 2, `${writes} claims were written`);
  const written = writes;
  await claimer.claim([digest, ...digests], signal);
  assert.equal(writes, written);
  const sweep = await beginSweep(store, [digest, ...digests], { claims: noClaims(), signal });
  assert.deepEqual([...sweep.free], []);
  await sweep.end();
});

test('a pruning run that is stopped still ends its sweep', async () => {
  const store = memory();
  const stop = new AbortController();
  const sweep = await beginSweep(store, [digest], { claims: noClaims(), signal: stop.signal });
  assert.equal(await sweepsIn(store), 1);
  stop.abort();
  await sweep.end();
  assert.equal(await sweepsIn(store), 0);
});
