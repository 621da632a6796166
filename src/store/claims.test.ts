import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { memory } from '../testing/memory-store.ts';
import { beginSweep, claimBlobs, noClaims } from './claims.ts';
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
  await claimBlobs(store, [digest], signal);
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
